"""Commits that wait for replicas and disks: real primaries, real replicas, lost replies."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from tests.busy import late
from tests.kvs.redis_places import raw_bytes, reads_or_commits, settings_for

from lo_kvs import settings
from lo_kvs.kvs import (
    KVS,
    Change,
    Conflict,
    EphemeralRedisKVS,
    KVSError,
    KVSRouter,
    NotPermitted,
    NotReplicated,
    OutcomeUnknown,
    PersistentRedisKVS,
    Refused,
    Unavailable,
)
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

#: Long enough for a replica of this machine, however busy it is.
WAIT_MAX_S = 20.0


@contextmanager
def replicas_of(primary: RedisServer, count: int = 1, *options: str) -> Iterator[list[RedisServer]]:
    """Servers that copy `primary`, once they have caught up."""
    replicas = [
        RedisServer("--replicaof", "127.0.0.1", str(primary.port), *options) for _ in range(count)
    ]
    try:
        for replica in replicas:
            replica.start()
        with redis.Redis(port=primary.port) as client:
            deadline = time.monotonic() + WAIT_MAX_S
            client.config_set("repl-diskless-sync-delay", 0)
            while client.wait(count, 100) < count:
                client.set("__touch", b"")  # so that there is something to wait for
                assert time.monotonic() < deadline
            client.delete("__touch")
        yield replicas
    finally:
        for replica in replicas:
            with replica:  # starts nothing that runs; its end removes its folder
                pass


@contextmanager
def stopped(*servers: RedisServer) -> Iterator[None]:
    """Stop their processes."""
    for server in servers:
        os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            os.kill(server.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def primary() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def replicated(primary: RedisServer) -> Iterator[RedisServer]:
    """The replica of `primary`."""
    with replicas_of(primary) as (replica,):
        yield replica


def knows_waitaof(server: RedisServer) -> bool:
    with redis.Redis(port=server.port) as client:
        try:
            client.execute_command("WAITAOF", 0, 0, 1)
        except redis.ResponseError:
            return False
        return True


def test_what_returned_is_on_the_replica(primary: RedisServer, replicated: RedisServer) -> None:
    async def main() -> None:
        where = settings_for(primary.port)
        with redis.Redis(port=replicated.port) as client:
            async with PersistentRedisKVS(
                connection=where, wait_replicas=1, wait_timeout=WAIT_MAX_S
            ) as store:
                for value in range(200):
                    await store.set("key", value)
                    assert raw_bytes(client, "key") == b"%d" % value
                await store.remove("key")
                assert raw_bytes(client, "key") is None
            async with EphemeralRedisKVS(
                60, connection=where, wait_replicas=1, wait_timeout=WAIT_MAX_S
            ) as cache:
                await cache.set("key", 1)
                assert raw_bytes(client, "key") == b"1"

    asyncio.run(main())


def test_hanging_replica(primary: RedisServer, replicated: RedisServer) -> None:
    """The change is written and reported as such: not a conflict, not unknown, not to be resent."""

    async def main() -> None:
        async with PersistentRedisKVS(
            connection=settings_for(primary.port), wait_replicas=1, wait_timeout=0.3
        ) as store:
            await store.multiset({"key": 0, "other": 0})
            with stopped(replicated):
                start = time.monotonic()
                with pytest.raises(NotReplicated, match=r"0 of 1 replica within 0\.3 s") as caught:
                    await store.update("key", lambda _: 1)
                assert 0.2 < time.monotonic() - start < late(0.8)
                error = caught.value
                assert (error.wanted, error.got, error.aof) == (1, 0, None)
                assert not isinstance(error, Unavailable | OutcomeUnknown | Refused)
                assert await store["key"] == 1
                # Of a group, what was made is not yet replicated, and the rest has its own answer.
                outcomes = await store.commit(
                    [Change("other", b"9", {"other": b"2"}), Change("new", None, {"new": b"1"})]
                )
                assert sorted(map(str, map(type, outcomes))) == sorted(
                    map(str, [Conflict, NotReplicated])
                )
                # A call that makes nothing has nothing to wait for.
                start = time.monotonic()
                assert await store.commit([Change("other", b"9", {})]) == [Conflict(b"0")]
                assert time.monotonic() - start < late(0.3)
            async with asyncio.timeout(WAIT_MAX_S):
                while True:
                    try:
                        await store.update("key", lambda value: int(str(value)) + 1)
                    except NotReplicated:  # the replica is waking up
                        continue
                    break
            with redis.Redis(port=replicated.port) as client:
                assert raw_bytes(client, "key") == raw_bytes(redis.Redis(port=primary.port), "key")

    asyncio.run(main())


def test_fewer_replicas_than_asked_for(primary: RedisServer, replicated: RedisServer) -> None:
    async def main() -> None:
        async with PersistentRedisKVS(
            connection=settings_for(primary.port), wait_replicas=2, wait_timeout=0.2
        ) as store:
            with pytest.raises(NotReplicated, match="1 of 2 replicas") as caught:
                await store.set("key", 1)
            assert (caught.value.wanted, caught.value.got) == (2, 1)
            assert await store["key"] == 1

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Fault.SWALLOW_CLOSE, Fault.CUT_AFTER, Fault.HALF_CLOSE])
def test_lost_reply_does_not_make_a_copy_of_what_has_none(
    primary: RedisServer, replicated: RedisServer, fault: Fault
) -> None:
    """The re-sent call writes nothing new, on a new connection: it must wait all the same."""

    async def main() -> None:
        async with (
            FaultProxy("127.0.0.1", primary.port, only=reads_or_commits) as proxy,
            PersistentRedisKVS(
                connection=settings_for(proxy.port), wait_replicas=1, wait_timeout=0.3
            ) as store,
        ):
            with redis.Redis(port=primary.port) as client:
                client.set("counter", b"0")
            async with asyncio.timeout(WAIT_MAX_S):
                while True:
                    try:
                        await store.set("counter", 0)
                        break
                    except NotReplicated:  # the replica is waking up
                        continue
            with stopped(replicated):
                proxy.inject(fault, 2)  # first comes the read
                with pytest.raises(NotReplicated):
                    await store.update("counter", lambda value: int(str(value)) + 1)
                assert proxy.counts[fault] == 1
                assert await store["counter"] == 1

    asyncio.run(main())


def test_record_that_answers_again_lives_as_long_as_a_new_one(redis_url: str) -> None:
    """The replay is a write, so that waiting after it covers what it answers."""
    from lo_kvs.kvs.redis.protocol.commit_script import COMMIT

    with redis.Redis.from_url(redis_url) as client:
        call = ("__lokvs:writer:x", "key", 1, 60_000, 0, 1, "ag.", b"1")
        text = COMMIT.text.decode()
        client.eval(text, 2, *map(str, call[:-1]), call[-1])
        client.pexpire("__lokvs:writer:x", 5_000)
        before = client.info("persistence")["rdb_changes_since_last_save"]
        assert client.eval(text, 2, *map(str, call[:-1]), call[-1]) == [b"c"]
        assert client.info("persistence")["rdb_changes_since_last_save"] == before + 1
        ttl_ms = client.pttl("__lokvs:writer:x")
        assert isinstance(ttl_ms, int)
        assert 50_000 < ttl_ms <= 60_000


def test_connection_lost_while_waiting(primary: RedisServer, replicated: RedisServer) -> None:
    """The commit was answered, the waiting was not: it is made once, and waited for again."""

    async def main() -> None:
        async with (
            FaultProxy("127.0.0.1", primary.port, only=lambda request: b"WAIT" in request) as proxy,
            PersistentRedisKVS(
                connection=settings_for(proxy.port), wait_replicas=1, wait_timeout=WAIT_MAX_S
            ) as store,
        ):
            await store.set("counter", 0)
            for fault in (Fault.CUT_BEFORE, Fault.SWALLOW_CLOSE, Fault.RESET):
                proxy.inject(fault)
                await store.update("counter", lambda value: int(str(value)) + 1)
            assert await store["counter"] == 3
            assert proxy.counts.total() == 3

    asyncio.run(main())


def test_user_without_permission_for_wait(primary: RedisServer) -> None:
    """Without the right to WAIT nothing is written: that is seen before the first commit."""
    with redis.Redis(port=primary.port) as client:
        client.set("key", b"1")
        client.execute_command("ACL", "SETUSER", "hasty", "on", ">word", "~*", "+@all", "-wait")
    hasty = RedisSettings(host="127.0.0.1", port=primary.port, username="hasty", password="word")

    async def main() -> None:
        async with PersistentRedisKVS(connection=hasty, wait_replicas=1) as store:
            for _ in range(2):
                with pytest.raises(NotPermitted, match="wait"):
                    await store.set("key", 2)
            assert await store["key"] == 1
        async with PersistentRedisKVS(connection=hasty) as store:
            await store.set("key", 3)

    asyncio.run(main())


def test_append_only_file() -> None:
    """Servers that have WAITAOF say what is on disk; others refuse before anything is written."""

    async def main(server: RedisServer) -> None:
        with redis.Redis(port=server.port) as client:
            async with PersistentRedisKVS(
                connection=settings_for(server.port), wait_aof=True, wait_timeout=WAIT_MAX_S
            ) as store:
                if not knows_waitaof(server):
                    for _ in range(2):
                        with pytest.raises(Refused, match=r"wait_aof.*Redis 7\.2"):
                            await store.set("key", 1)
                    assert client.dbsize() == 0
                    return
                for value in range(20):
                    await store.set("key", value)
                client.config_set("appendfsync", "no")  # the kernel writes it when it likes
            async with PersistentRedisKVS(
                connection=settings_for(server.port), wait_aof=True, wait_timeout=0.2
            ) as store:
                with pytest.raises(NotReplicated, match="not on the server's own disk") as caught:
                    await store.set("key", 21)
                assert (caught.value.wanted, caught.value.got, caught.value.aof) == (0, 0, False)
                assert await store["key"] == 21
            client.config_set("appendfsync", "always")
            async with PersistentRedisKVS(
                connection=settings_for(server.port),
                wait_aof=True,
                wait_replicas=1,
                wait_timeout=0.2,
            ) as store:
                with pytest.raises(NotReplicated, match="0 of 1 replica within") as caught:
                    await store.set("key", 22)
                assert caught.value.aof is True
                with replicas_of(server, 1, "--appendonly", "yes", "--appendfsync", "always"):
                    async with PersistentRedisKVS(
                        connection=settings_for(server.port),
                        wait_aof=True,
                        wait_replicas=1,
                        wait_timeout=WAIT_MAX_S,
                    ) as patient:
                        await patient.set("key", 23)
            client.config_set("appendonly", "no")
            async with PersistentRedisKVS(
                connection=settings_for(server.port), wait_aof=True
            ) as store:
                with pytest.raises(Refused, match="appendonly"):
                    await store.set("key", 24)
                assert await store["key"] == 23

    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        asyncio.run(main(server))


def test_no_waiting_by_default() -> None:
    async def main(server: RedisServer) -> None:
        async with PersistentRedisKVS(connection=settings_for(server.port)) as store:
            await store.set("key", 1)
            await store.update("key", lambda _: 2)
        with redis.Redis(port=server.port) as client:
            assert not [name for name in client.info("commandstats") if "wait" in name]

    with RedisServer() as server:
        asyncio.run(main(server))


@student_event_reducer(null_state={"count": 0})
async def count(event: object, state: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    state = {"count": state["count"] + 1}
    return state, state


def test_reducer_continues_from_a_state_that_is_not_yet_replicated(
    primary: RedisServer, replicated: RedisServer
) -> None:
    async def main() -> None:
        store = PersistentRedisKVS(
            connection=settings_for(primary.port),
            prefix="reducer:",
            wait_replicas=1,
            wait_timeout=0.3,
        )
        KVS.add_item("default", store)
        try:
            process = await count({"auth": {"safe_user_id": "s1"}})
            for _ in range(2):
                with stopped(replicated), pytest.raises(NotReplicated):
                    await process({}, {})
            # Both were written; the next one counts on, and neither was counted twice.
            async with asyncio.timeout(WAIT_MAX_S):
                counted = 2
                while True:
                    counted += 1
                    try:
                        assert await process({}, {}) == {"count": counted}
                    except NotReplicated:  # the replica is waking up
                        continue
                    break
            # The state that is held was read afresh: a change from outside is seen.
            (key,) = [key for key in await store.keys() if key.startswith("Internal")]
            with stopped(replicated), pytest.raises(NotReplicated):
                await process({}, {})
            with redis.Redis(port=primary.port) as client:
                client.set(f"reducer:{key}", b'{"count": 100}')
            with stopped(replicated), pytest.raises(NotReplicated):
                await process({}, {})
            assert await store[key] == {"count": 101}
        finally:
            KVS.remove_item("default")
            await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"wait_replicas": -1}, "`wait_replicas` must be 0 or more"),
        ({"wait_timeout": 0}, "`wait_timeout` must be a millisecond or more"),
        ({"wait_timeout": float("nan")}, "`wait_timeout`"),
    ],
)
def test_invalid_options(options: dict[str, float], match: str) -> None:
    with pytest.raises(KVSError, match=match):
        PersistentRedisKVS(**options)  # type: ignore[arg-type]


def test_options_come_from_the_settings(primary: RedisServer, replicated: RedisServer) -> None:
    """An entry of the `kvs` block that waits for two replicas, where there is one."""
    options = {"wait_replicas": 2, "wait_timeout": 0.2}
    block = {
        "default": {"type": "redis", **options},
        "cache": {"type": "redis_ephemeral", "expiry": 30, "prefix": "cache:", **options},
        "hasty": {"type": "redis", "prefix": "hasty:"},
    }

    async def main() -> None:
        async with KVSRouter() as router:
            router.configure(block)
            for name in ("default", "cache"):
                with pytest.raises(NotReplicated, match=r"1 of 2 replicas within 0\.2 s"):
                    await getattr(router, name)().set("key", 1)
                assert await getattr(router, name)()["key"] == 1
            await router.hasty().set("key", 1)

    kept = dict(settings.settings)
    settings.settings["redis_connection"] = {"redis_port": primary.port}
    try:
        asyncio.run(main())
    finally:
        settings.settings.clear()
        settings.settings.update(kept)
