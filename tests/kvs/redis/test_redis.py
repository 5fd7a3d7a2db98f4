"""The stores on Redis: other programs' keys, prefixes, event loops, forks, scripts."""

from __future__ import annotations

import asyncio
import gc
import math
import os
from collections import Counter
from collections.abc import Iterator

import pytest
import redis
from tests.kvs.children import run_in_child
from tests.kvs.redis_places import names, raw_bytes, settings_for

from lo_kvs import settings
from lo_kvs.kvs import (
    Change,
    ClearRefused,
    CorruptValue,
    EphemeralRedisKVS,
    Guard,
    InvalidKey,
    KVSError,
    PersistentRedisKVS,
    Refused,
    Store,
    WrongType,
)
from lo_kvs.kvs.changes import RESERVED_PREFIX
from lo_kvs.kvs.configuration import entry_faults
from lo_kvs.kvs.redis.server.client import BUCKETS, ServerClient
from lo_kvs.kvs.redis.server.writer import ENOUGH
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.server import RedisServer

FOREIGN = ("list", "hash", "set", "zset", "stream")


@pytest.fixture
def where(redis_url: str) -> RedisSettings:
    return RedisSettings(url=redis_url)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def put_foreign(client: redis.Redis) -> dict[bytes, bytes]:
    """Keys as another program has them; returns what each of them holds, dumped."""
    client.rpush("list", "a")
    client.hset("hash", "field", "a")
    client.sadd("set", "a")
    client.zadd("zset", {"a": 1})
    client.xadd("stream", {"a": "1"})
    client.set(b"\xff\xfebinary", b"1")
    client.set("binary value", b"\x80\x04\x95")
    return {name: client.dump(name) for name in names(client)}  # type: ignore[misc]


# -- other programs' keys ------------------------------------------------------------------


@pytest.mark.parametrize("ttl", [False, True])
def test_keys_of_other_types_are_reported_and_never_overwritten(
    client: redis.Redis, where: RedisSettings, ttl: bool
) -> None:
    before = put_foreign(client)

    async def use(store: Store) -> None:
        for key in FOREIGN:
            change = Change(key, Guard.ANY, {key: b"1", "beside": b"1"})
            for use in (
                store.get,
                lambda key: store[key],
                store.exists,
                lambda key: store.multiget(["absent", key]),
                lambda key: store.set(key, 1),
                lambda key: store.multiset({key: 1}),
                lambda key: store.update(key, lambda _: 1),
                store.remove,
            ):
                with pytest.raises(WrongType, match=f"'{key}'.*another program"):
                    await use(key)
            for expected in (Guard.ANY, None, b"1"):
                (outcome,) = await store.commit([change._replace(expected=expected)])
                assert isinstance(outcome, WrongType), (key, expected)
        assert await store.keys() == ["binary value"]
        assert await store.dump() == {}
        with pytest.raises(CorruptValue):
            await store.get("binary value")

    async def main() -> None:
        async with (
            EphemeralRedisKVS(connection=where)
            if ttl
            else PersistentRedisKVS(connection=where) as store
        ):
            await use(store)

    asyncio.run(main())
    assert {name: client.dump(name) for name in before} == before
    assert raw_bytes(client, "beside") is None


@pytest.mark.parametrize("expected", [Guard.ANY, None, b"1"])
@pytest.mark.parametrize("put", [b"2", None])
def test_other_type_at_a_key_that_is_not_the_guard(
    client: redis.Redis, where: RedisSettings, expected: bytes | Guard | None, put: bytes | None
) -> None:
    before = put_foreign(client)
    if expected == b"1":
        client.set("guard", b"1")

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            for key in FOREIGN:
                change = Change("guard", expected, {"guard": b"2", key: put, "beside": b"2"})
                (outcome,) = await store.commit([change])
                assert isinstance(outcome, WrongType)
                assert outcome.key == key

    asyncio.run(main())
    assert {name: client.dump(name) for name in before} == before
    assert raw_bytes(client, "guard") == (b"1" if expected == b"1" else None)
    assert raw_bytes(client, "beside") is None


def test_other_types_beside_ours_in_one_call(client: redis.Redis, where: RedisSettings) -> None:
    put_foreign(client)

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            with pytest.raises(WrongType):
                await store.multiset({"before": 1, "list": 2, "after": 3})
            # The others are written all the same.
            assert await store.multiget(["before", "after"]) == [1, 3]
            outcomes = await store.commit(
                [Change(key, None, {key: b"1"}) for key in ("a", "hash", "before", "b")]
            )
            assert [type(outcome).__name__ for outcome in outcomes] == [
                "NoneType",
                "WrongType",
                "Conflict",
                "NoneType",
            ]

    asyncio.run(main())


def test_clear_leaves_what_is_not_the_stores(client: redis.Redis, where: RedisSettings) -> None:
    before = put_foreign(client)
    client.rpush("mine:list", "a")
    client.set(b"mine:\xff", b"1")

    async def main() -> None:
        async with PersistentRedisKVS(prefix="mine:", connection=where) as store:
            await store.multiset({"a": 1, "b": 2, "": 3})
            await store.clear()
            assert await store.keys() == []
        async with PersistentRedisKVS(connection=where) as store:
            with pytest.raises(ClearRefused):
                await store.clear()
            await store.clear(everything=True)
            assert await store.keys() == []

    asyncio.run(main())
    kept = {name for name in names(client) if not name.startswith(b"__lokvs:")}
    strings = {b"binary value"}
    assert kept == set(before) - strings | {b"mine:list", b"mine:\xff"}


# -- prefixes and records --------------------------------------------------------------------


def test_stores_with_different_prefixes_do_not_see_each_other(
    client: redis.Redis, where: RedisSettings
) -> None:
    prefixes = ["a:", "b:", "a*:", "a?:", "[ab]:", "\\a:", "é:"]

    async def main() -> None:
        stores = [PersistentRedisKVS(prefix=prefix, connection=where) for prefix in prefixes]
        for at, store in enumerate(stores):
            await store.multiset({"key": at, "a:key": -at})
        for at, store in enumerate(stores):
            assert sorted(await store.keys()) == ["a:key", "key"]
            assert await store.keys("a") == ["a:key"]
            assert await store.dump() == {"key": at, "a:key": -at}
        await stores[2].clear()
        assert [len(await store.keys()) for store in stores] == [2, 2, 0, 2, 2, 2, 2]
        for store in stores:
            await store.aclose()

    asyncio.run(main())
    assert raw_bytes(client, "b:key") == b"1"


@pytest.mark.parametrize("prefix", ["", "p:", "_p", "___"])
def test_records_are_not_listed_and_expire(
    client: redis.Redis, where: RedisSettings, prefix: str
) -> None:
    async def main() -> None:
        async with PersistentRedisKVS(prefix=prefix, connection=where) as store:
            await store.multiset({str(at): at for at in range(20)})
            assert sorted(await store.keys()) == sorted(str(at) for at in range(20))
            assert await store.keys("__") == []
            assert await store.keys("_lokvs") == []
            await store.clear(everything=True)

    asyncio.run(main())
    records = {name for name in names(client) if name.startswith(b"__lokvs:")}
    assert names(client) == records
    assert records, "clear() took the records away"
    for record in records:
        ttl_ms = client.pttl(record)
        assert isinstance(ttl_ms, int)
        assert 60_000 < ttl_ms <= 3_600_000


@pytest.mark.parametrize("prefix", ["__lokvs:", "__lokvs:mine:", "\ud800", 5, None])
def test_invalid_prefix(prefix: str) -> None:
    with pytest.raises(InvalidKey):
        PersistentRedisKVS(prefix=prefix)


@pytest.mark.parametrize("length", range(1, len(RESERVED_PREFIX) + 1))
def test_prefix_with_which_the_reserved_one_begins(length: int) -> None:
    """The key `_lokvs:writer:x` of a store with the prefix `_` would be a record."""
    prefix = RESERVED_PREFIX[:length]
    with pytest.raises(InvalidKey):
        PersistentRedisKVS(prefix=prefix)
    faults = entry_faults(
        "states", {"type": "redis", "prefix": prefix}, is_reserved=lambda _: False
    )
    assert [fault.partition(": ")[0] for fault in faults] == ["kvs.states.prefix"]


@pytest.mark.parametrize("expire", [0, -1, 0.0001, math.nan, math.inf])
def test_invalid_expiry(expire: float) -> None:
    with pytest.raises(KVSError, match=r"expire.* got"):
        EphemeralRedisKVS(expire)


def test_expired_value_is_absent(client: redis.Redis, where: RedisSettings) -> None:
    async def main() -> None:
        async with EphemeralRedisKVS(60, connection=where) as store:
            await store.multiset({"key": 1, "other": 2})
            client.pexpire("key", 1)
            while client.exists("key"):  # noqa: ASYNC110 - the server tells no sooner
                await asyncio.sleep(0.001)
            assert await store.multiget(["key", "other"], default="gone") == ["gone", 2]
            assert await store.exists("key") is False
            assert await store.keys() == ["other"]
            assert await store.dump() == {"other": 2}
            assert await store.remove("key") is False
            assert await store.commit([Change("key", None, {"key": b"3"})]) == [None]
            assert await store.update("key", lambda value: [value]) == [3]

    asyncio.run(main())


# -- connections -----------------------------------------------------------------------------


def test_connections_end_with_their_event_loop(client: redis.Redis, where: RedisSettings) -> None:
    store = PersistentRedisKVS(connection=where)
    before = len(client.client_list())
    for at in range(12):
        asyncio.run(store.update("counter", lambda value: int(str(value or 0)) + 1))
        asyncio.run(store.set(f"key {at}", at))
    assert asyncio.run(store["counter"]) == 12
    gc.collect()  # an unclosed connection would be told now
    assert len(client.client_list()) == before
    assert len(store._clients) <= 1


def test_closing_closes_all_connections(client: redis.Redis, where: RedisSettings) -> None:
    before = len(client.client_list())

    async def main() -> None:
        store = PersistentRedisKVS(connection=where)
        await asyncio.gather(*(store.update(f"key {at}", lambda _: 1) for at in range(50)))
        assert await store.keys()
        assert len(client.client_list()) > before
        await store.aclose()

    asyncio.run(main())
    gc.collect()
    assert len(client.client_list()) == before


def test_many_tasks_share_few_connections(client: redis.Redis, where: RedisSettings) -> None:
    before = len(client.client_list())

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await asyncio.gather(*(store.update(f"key {at}", lambda _: 1) for at in range(1_000)))
            assert len(client.client_list()) - before <= where.pool_size
            assert len(await store.keys()) == 1_000

    asyncio.run(main())


def test_start_of_a_burst_is_sent_before_the_rest_is_submitted(
    client: redis.Redis, where: RedisSettings
) -> None:
    """So the server works on it meanwhile; what follows leaves together, as ever."""

    def calls() -> int:
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])

    async def main() -> None:
        async with PersistentRedisKVS(connection=where, lanes=1) as store:
            await store.set("key", 0)  # the connection is there
            for burst, leaves in ((ENOUGH - 1, 1), (ENOUGH, 1), (3 * ENOUGH, 2)):
                before = calls()
                changes = [Change(f"{at}", Guard.ANY, {f"{at}": b"1"}) for at in range(burst)]
                assert await store.commit(changes) == [None] * burst
                assert calls() - before == leaves

    asyncio.run(main())


def test_store_is_used_on_both_sides_of_a_fork(client: redis.Redis, where: RedisSettings) -> None:
    store = PersistentRedisKVS(connection=where)

    async def count() -> None:
        for _ in range(50):
            await store.update("counter", lambda value: int(str(value or 0)) + 1)

    asyncio.run(count())
    pids = [run_in_child(count()) for _ in range(2)]
    asyncio.run(count())
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert asyncio.run(store["counter"]) == 200
    # Each process wrote under ids of its own.
    assert len([name for name in names(client) if name.startswith(b"__lokvs:writer:")]) >= 3


def test_connection_comes_from_the_settings(
    where: RedisSettings, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PersistentRedisKVS()
    monkeypatch.setattr(
        settings, "settings", {"redis_connection": {"redis_url": where.url, "redis_timeout": 5}}
    )
    asyncio.run(store.set("key", 1))
    assert raw_bytes(client, "key") == b"1"


# -- the server --------------------------------------------------------------------------------


def test_scripts_forgotten_between_calls(client: redis.Redis, where: RedisSettings) -> None:
    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            for at in range(10):
                client.script_flush()
                assert await store.update("key", lambda value: [value]) is not None
                client.script_flush()
                assert await store.exists("key")
                assert await store.commit([Change("n", None, {f"{at}": b"1"})]) == [None]
            assert len(await store.keys()) == 11

    asyncio.run(main())


def test_server_restarted_between_calls() -> None:
    async def main(server: RedisServer) -> None:
        async with PersistentRedisKVS(connection=settings_for(server.port)) as store:
            for at in range(3):
                assert await store.update("counter", lambda v: int(str(v or 0)) + 1) == at + 1
                server.restart()
                assert await store.keys() == ["counter"]
                server.restart()
                assert await store["counter"] == at + 1

    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        asyncio.run(main(server))


def test_server_started_while_a_call_waits() -> None:
    async def main(server: RedisServer) -> None:
        async with PersistentRedisKVS(connection=settings_for(server.port)) as store:
            await store.set("key", 1)
            server.stop()
            waiting = asyncio.create_task(store.set("key", 2))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            server.start()
            await waiting
            assert await store["key"] == 2

    with RedisServer() as server:
        asyncio.run(main(server))


def test_server_that_refuses_commands() -> None:
    """Each refusal is raised at once with the server's error, and nothing is written."""

    async def main(server: RedisServer) -> None:
        with redis.Redis.from_url(server.url) as client:
            async with PersistentRedisKVS(connection=settings_for(server.port)) as store:
                await store.set("key", 1)
                client.config_set("maxmemory", 1)
                with pytest.raises(Refused, match="OOM command not allowed"):
                    await store.set("key", 2)
                with pytest.raises(Refused, match="OOM command not allowed"):
                    await store.multiset({"other": 1, "key": 2})
                assert await store["key"] == 1
                client.config_set("maxmemory", 0)
                await store.set("key", 3)
            assert raw_bytes(client, "key") == b"3"
            client.execute_command(
                "ACL", "SETUSER", "reader", "on", ">word", "~*", "+@all", "-set", "-mset"
            )
        reader = RedisSettings(
            host="127.0.0.1", port=server.port, username="reader", password="word"
        )
        async with PersistentRedisKVS(connection=reader) as store:
            assert await store["key"] == 3
            with pytest.raises(Refused, match=r"(NOPERM|permission|can't run this command)"):
                await store.set("key", 4)
            assert await store["key"] == 3

    with RedisServer() as server:
        asyncio.run(main(server))


def test_wrong_password_fails_at_once_and_is_not_shown() -> None:
    async def main(server: RedisServer) -> None:
        for url in (
            f"redis://:hunter2@127.0.0.1:{server.port}/0",
            f"redis://somebody:hunter2@127.0.0.1:{server.port}/0",
            f"redis://127.0.0.1:{server.port}/0",
        ):
            async with PersistentRedisKVS(connection=RedisSettings(url=url)) as store:
                start = asyncio.get_running_loop().time()
                for use in (
                    lambda: store.get("key"),
                    lambda: store.set("key", 1),
                    store.keys,
                ):
                    with pytest.raises(Refused) as refused:
                        await use()
                    assert f"127.0.0.1:{server.port}" in str(refused.value)
                    assert "hunter2" not in f"{refused.value} {refused.value!r} {store!r}"
                assert asyncio.get_running_loop().time() - start < 2

    with RedisServer(password="secret") as server:
        asyncio.run(main(server))


def test_lanes_and_groups_follow_the_options(redis_url: str) -> None:
    async def main() -> None:
        where = settings_for(int(redis_url.rpartition(":")[2].partition("/")[0]))
        with pytest.raises(KVSError, match="15 `lanes` need a `redis_pool_size` of 17"):
            PersistentRedisKVS(connection=where, lanes=15)
        with pytest.raises(KVSError, match="`group_changes` must be 1 to 4,000, got 0"):
            PersistentRedisKVS(connection=where, group_changes=0)
        async with PersistentRedisKVS(connection=where, lanes=4, group_changes=10) as store:
            await store.multiset({f"key {at}": at for at in range(200)})
            client = store._running()
            assert isinstance(client, ServerClient)
            # Each lane has made at least a tenth of what it had to make, in a call each.
            assert [writer._calls._number >= 2 for writer in client._writers] == [True] * 4
            assert sum(writer._calls._number for writer in client._writers) >= 20
            assert await store.multiget([f"key {at}" for at in range(200)]) == list(range(200))

    asyncio.run(main())


@pytest.mark.parametrize("lanes", [1, 2, 3])
def test_few_keys_use_all_lanes(redis_url: str, lanes: int) -> None:
    """Also where their hashes alone would have them all share one."""
    alike = {
        hash(student) % BUCKETS: student
        for student in (f"STUDENT:{number}" for number in range(1000))
        if hash(student) % lanes == 0
    }
    students = list(alike.values())[:12]

    async def main() -> None:
        where = settings_for(int(redis_url.rpartition(":")[2].partition("/")[0]))
        async with PersistentRedisKVS(connection=where, lanes=lanes) as store:
            ways = [store.submitter_for(f"Internal,count,{student}") for student in students]
            assert list(Counter(map(id, ways)).values()) == [12 // lanes] * lanes
            # A student's keys share a lane, and keep it.
            for student, way in zip(students, ways, strict=True):
                assert store.submitter_for(f"Internal,edits,EventField.doc_id:1,{student}") is way
                assert store.submitter_for(student) is way

    asyncio.run(main())
