"""Commits of large values: the same results as the script, at most once, in two round trips."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import hiredis
import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import NoPermissionError, ResponseError
from tests.kvs.redis_places import settings_for

from lo_kvs.kvs import (
    Change,
    Conflict,
    EphemeralRedisKVS,
    Guard,
    OutcomeUnknown,
    OutOfMemory,
    PersistentRedisKVS,
    WrongType,
)
from lo_kvs.kvs.redis.protocol.commit_script import WriterSettings
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction, packed_transaction
from lo_kvs.kvs.redis.protocol.commits import LARGE_BYTES
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, RawConnection, RoundTrip, converse
from lo_kvs.redis_connection import factory
from lo_kvs.testing.servers.server import RedisServer

RECORD = b"__lokvs:writer:test"
LARGE = '"' + "x" * LARGE_BYTES + '"'
NAMES = ("a", "b", "c", "list", "Internal,m.f,STUDENT:é")
values = st.sampled_from([b"1", b"2", b"\x00\xff", b"y" * 600])
puts = st.dictionaries(st.sampled_from(NAMES), st.none() | values, max_size=3)
changes = st.builds(Change, st.sampled_from(NAMES), st.none() | values | st.just(Guard.ANY), puts)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url, protocol=2) as client:
        client.flushall()
        yield client


def on_connection(
    server: RedisServer, use: Callable[[Any], Coroutine[Any, Any, Any]], url: str = ""
) -> Any:
    """What `use` returns for a connection of redis-py."""

    async def main() -> Any:
        where = settings_for(server.port)
        client = factory.client(where) if not url else redis.asyncio.Redis.from_url(url)
        pool: Any = client.connection_pool
        connection: Any = await pool.get_connection()
        try:
            return await use(connection)
        finally:
            await connection.disconnect()
            await client.aclose()

    return asyncio.run(main())


def writer_with(ttl_ms: int = 0, changes_max: int = 500) -> WriterSettings:
    return WriterSettings(RECORD, b"p:", ttl_ms, 60_000, changes_max)


def transaction(found: list[Change], *, number: int = 1, ttl_ms: int = 0) -> Transaction:
    waiting: deque[Any] = deque((change, print) for change in found)
    made = packed_transaction(waiting, [], writer_with(ttl_ms), number, large_bytes=0)
    assert len(made.group) + len(waiting) == len(found)
    return made


def stored(client: redis.Redis) -> dict[bytes, tuple[Any, bool]]:
    """What stands in the server, and whether it expires; the record aside."""
    found: dict[bytes, tuple[Any, bool]] = {}
    for name in sorted(client.scan_iter(count=1_000)):
        if name != RECORD:
            kind = client.type(name)
            data: Any = client.get(name) if kind == b"string" else kind
            found[name] = data, int(str(client.pttl(name))) > 0
    return found


def prepare(client: redis.Redis, before: dict[str, bytes]) -> None:
    client.flushall()
    client.rpush("p:list", "x")
    for key, data in before.items():
        client.set(f"p:{key}", data, px=90_000)


@settings(max_examples=150, deadline=None)
@given(
    before=st.dictionaries(st.sampled_from(NAMES[:3]), values),
    found=st.lists(changes, min_size=1, max_size=4),
    ttl_ms=st.sampled_from([0, 60_000]),
)
def test_a_transaction_does_what_the_script_does(
    server: RedisServer, before: dict[str, bytes], found: list[Change], ttl_ms: int
) -> None:
    made = transaction(found, ttl_ms=ttl_ms)
    with redis.Redis.from_url(server.url, protocol=2) as client:

        async def both(connection: RawConnection) -> list[Outcomes]:
            prepare(client, before)
            outcomes = [await converse(connection, made.rounds())]
            contents = stored(client)
            again = await converse(connection, made.rounds())  # as if its reply had been lost
            assert again == ((outcomes[0][0], None) if "c" in outcomes[0][0] else outcomes[0])
            assert stored(client) == contents
            prepare(client, before)
            outcomes.append(await converse(connection, made.by_script().rounds()))
            assert stored(client) == contents
            return outcomes

        mine, scripted = on_connection(server, both)
    assert mine == scripted
    assert not made.refused


def test_it_takes_what_is_large_from_the_left() -> None:
    def group(sizes: list[int], *, most: int = 9, large: int = 100) -> list[int]:
        waiting: deque[Any] = deque(
            (Change(f"k{at}", b"e" * 50, {f"k{at}": b"x" * size}), print)
            for at, size in enumerate(sizes)
        )
        waiting.append((Change("k0", None, {"k0": b"x" * 500}), print))
        settings = writer_with(changes_max=most)
        made = packed_transaction(waiting, [], settings, 1, large_bytes=large)
        return [sizes[int(guard.removeprefix("k"))] for guard, _ in made.group]

    assert group([50, 50, 49, 50]) == [50, 50]
    assert group([50, 60, 70]) == [50, 60, 70]  # the last names a key of the first
    assert group([50, 60, 70], most=2) == [50, 60]
    assert group([49, 60]) == []
    assert group([3_000_000, 3_000_000, 3_000_000]) == [3_000_000] * 2


def test_a_later_call_has_been_made(server: RedisServer, client: redis.Redis) -> None:
    async def use(connection: RawConnection) -> None:
        change = Change("g", Guard.ANY, {"g": b"later"})
        assert await converse(connection, transaction([change], number=3).rounds()) == ("c", [])
        stale = Change("g", Guard.ANY, {"g": b"stale"})
        with pytest.raises(ResponseError, match="LOKVS_STALE call 2 comes after call 3"):
            await converse(connection, transaction([stale], number=2).rounds())
        assert client.get("p:g") == b"later"
        # The script knows the transaction's record, and the other way round.
        call = transaction([stale], number=4).by_script()
        assert await converse(connection, call.rounds()) == ("c", [])
        with pytest.raises(ResponseError, match="LOKVS_STALE call 3 comes after call 4"):
            await converse(connection, transaction([change], number=3).rounds())
        assert client.get("p:g") == b"stale"

    on_connection(server, use)


async def say(connection: Any, trip: RoundTrip) -> list[Any]:
    await connection.send_packed_command([trip.commands])
    return [await connection.read_response() for _ in range(trip.replies)]


def test_what_was_changed_after_the_look_is_looked_at_again(
    server: RedisServer, client: redis.Redis
) -> None:
    async def use(connection: RawConnection) -> None:
        client.mset({"p:a": b"1", "p:b": b"1"})
        found = [Change("a", b"1", {"a": b"2"}), Change("b", b"1", {"b": b"2", "x": b"2"})]
        rounds = transaction(found).rounds()
        writes = rounds.send(await say(connection, next(rounds)))
        client.set("p:a", b"other")
        looks = rounds.send(await say(connection, writes))
        assert client.mget("p:a", "p:b", "p:x") == [b"other", b"1", None]
        writes = rounds.send(await say(connection, looks))
        with pytest.raises(StopIteration) as finished:
            rounds.send(await say(connection, writes))
        assert finished.value.value == ("nc", [b"other"])
        assert client.mget("p:a", "p:b", "p:x") == [b"other", b"2", b"2"]

    on_connection(server, use)


@pytest.mark.parametrize("expected", [b"1", Guard.ANY])
def test_what_comes_late_is_not_made(
    server: RedisServer, client: redis.Redis, expected: bytes | Guard
) -> None:
    """Its connection was given up with the EXEC on its way; sent again, it was made before."""

    async def use(connection: RawConnection) -> None:
        client.set("p:a", b"1")
        made = transaction([Change("a", expected, {"a": b"2"})])
        lost = made.rounds()
        late = lost.send(await say(connection, next(lost)))

        async def again(other: RawConnection) -> None:
            assert await converse(other, made.rounds()) == ("c", [])

        await asyncio.to_thread(on_connection, server, again)
        client.set("p:a", b"newer")
        assert (await say(connection, late))[-1] is None
        assert client.get("p:a") == b"newer"

    on_connection(server, use)


def test_abandoned_call_is_not_executed_after_the_next_one(
    server: RedisServer, client: redis.Redis
) -> None:
    """Else it would take the record of that one away, which then could be made twice."""

    async def use(connection: RawConnection) -> None:
        given_up = transaction([Change("a", None, {"a": b"1"})]).rounds()
        late = given_up.send(await say(connection, next(given_up)))

        async def the_next(other: RawConnection) -> None:
            made = transaction([Change("b", None, {"b": b"2"})], number=2)
            assert await converse(other, made.rounds()) == ("c", [])

        await asyncio.to_thread(on_connection, server, the_next)
        assert (await say(connection, late))[-1] is None
        assert client.mget("p:a", "p:b", RECORD) == [None, b"2", b'[2,"c"]']

    on_connection(server, use)


@pytest.mark.parametrize("withheld", ["watch", "unwatch", "multi", "exec", "copy"])
def test_user_without_transactions_is_served_by_the_script(
    server: RedisServer, client: redis.Redis, withheld: str
) -> None:
    right = [f"-{withheld}"]
    client.execute_command(  # type: ignore[no-untyped-call]
        "ACL", "SETUSER", "app", "reset", "on", ">pass", "~*", "+@all", *right
    )
    url = server.url.replace("//", "//app:pass@")

    async def use(connection: RawConnection) -> None:
        made = transaction([Change("a", None, {"a": b"2", "b": (same := b"22"), "c": same})])
        assert await converse(connection, made.rounds()) == ("c", [])
        assert made.refused
        assert client.mget("p:a", "p:b", "p:c") == [b"2", b"22", b"22"]
        assert (await converse(connection, made.rounds()))[0] == "c"
        assert client.get(RECORD) == b'[1,"c"]'

    on_connection(server, use, url)


def test_permission_missing_for_script_and_transaction_is_reported(
    server: RedisServer, client: redis.Redis
) -> None:
    client.execute_command(  # type: ignore[no-untyped-call]
        "ACL", "SETUSER", "app", "reset", "on", ">pass", "~*", "+@all", "-set"
    )
    url = server.url.replace("//", "//app:pass@")

    async def use(connection: RawConnection) -> None:
        with pytest.raises((NoPermissionError, ResponseError), match=r"can't run|ACL failure"):
            await converse(connection, transaction([Change("a", None, {"a": b"2"})]).rounds())
        assert stored(client) == {}

    on_connection(server, use, url)


def test_partly_executed_transaction_is_unknown() -> None:
    """A right was taken away between MULTI and EXEC: nothing may send it again."""
    rounds = transaction([Change("a", None, {"a": b"2", "b": b"3"})]).rounds()
    looks = next(rounds)
    writes = rounds.send([b"OK", b"OK", [None, None], b"none", b"none"])
    assert (looks.replies, writes.replies) == (5, 5)
    refused = hiredis.ReplyError("NOPERM this user has no permissions to run the 'set' command")
    with pytest.raises(OutcomeUnknown, match="only partly executed: NOPERM"):
        rounds.send([b"OK", b"QUEUED", b"QUEUED", b"QUEUED", [b"OK", refused, b"OK"]])


def test_error_that_stopped_writes_before_exec_is_reported() -> None:
    rounds = transaction([Change("a", None, {"a": b"2"})]).rounds()
    next(rounds)
    rounds.send([b"OK", b"OK", [None, None], b"none"])
    aborted = redis.exceptions.ExecAbortError(
        "Transaction discarded because of: READONLY You can't write against a read only replica."
    )
    with pytest.raises(ResponseError, match=r"^READONLY You can't write"):
        rounds.send([b"OK", b"QUEUED", b"QUEUED", aborted])


# -- by a store --------------------------------------------------------------------------------


def calls_of(client: redis.Redis) -> dict[str, int]:
    """How often the server has run the commands that commits use."""
    stats: Any = client.info("commandstats")
    return {
        name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"]
        for name in ("evalsha", "eval", "exec", "mget", "copy", "set")
    }


def test_a_store_commits_large_values_without_lua(server: RedisServer, client: redis.Redis) -> None:
    async def main() -> None:
        where = settings_for(server.port)
        async with EphemeralRedisKVS(30, connection=where) as store:
            await store.set("small", 1)
            client.config_resetstat()
            data = LARGE.encode()
            both = [Change("i", None, {"i": data, "e": data}), Change("s", None, {"s": b"1"})]
            assert await store.commit(both) == [None, None]
            used = calls_of(client)
            assert (used["exec"], used["evalsha"] + used["eval"], used["copy"]) == (1, 1, 1)
            assert client.mget("i", "e", "s") == [data, data, b"1"]
            for key in ("i", "e", "s"):
                assert 29_000 < int(str(client.pttl(key))) <= 30_000
            # A conflict brings the current value, and nothing is written.
            assert await store.commit(both[:1]) == [Conflict(data)]
            assert calls_of(client)["exec"] == 1
            client.rpush("list", "x")
            (outcome,) = await store.commit([Change("list", None, {"list": data})])
            assert isinstance(outcome, WrongType)
            assert await store.update("e", lambda value: f"{value}!") == LARGE[1:-1] + "!"
            assert calls_of(client)["exec"] == 2

    asyncio.run(main())


def test_a_store_goes_by_the_script_once_it_was_refused(
    server: RedisServer, client: redis.Redis
) -> None:
    client.execute_command(  # type: ignore[no-untyped-call]
        "ACL", "SETUSER", "app", "reset", "on", ">pass", "~*", "+@all", "-watch"
    )

    async def main() -> None:
        where = settings_for(server.port)
        where = type(where)(url=server.url.replace("//", "//app:pass@"))
        async with PersistentRedisKVS(connection=where, lanes=1) as store:
            for at in range(4):
                await store.set("key", LARGE + str(at))
                assert await store["key"] == LARGE + str(at)
            stats: Any = client.info("commandstats")
            assert stats["cmdstat_watch"]["rejected_calls"] == 1

    asyncio.run(main())


def test_out_of_memory_for_a_large_value_is_reported(client: redis.Redis) -> None:
    async def main(server: RedisServer, raw: redis.Redis) -> None:
        async with PersistentRedisKVS(connection=settings_for(server.port)) as store:
            await store.set("key", LARGE)
            raw.config_set("maxmemory", 1)
            with pytest.raises(OutOfMemory):
                await store.set("key", LARGE + "more")
            raw.config_set("maxmemory", 0)
            assert await store["key"] == LARGE
            await store.set("key", LARGE + "more")
            assert await store["key"] == LARGE + "more"

    with RedisServer() as server, redis.Redis.from_url(server.url) as raw:
        asyncio.run(main(server, raw))


def test_one_key_written_by_many_stores_counts_each_update(server: RedisServer) -> None:
    """Transactions of several connections meet on one key: each looks again until it is made."""

    async def main() -> None:
        where = settings_for(server.port)
        stores = [PersistentRedisKVS(connection=where) for _ in range(4)]
        await stores[0].set("counter", [LARGE, 0])

        def more(value: Any) -> Any:
            return [value[0], value[1] + 1]

        async def count(store: PersistentRedisKVS) -> None:
            for _ in range(40):
                await store.update("counter", more)

        await asyncio.gather(*(count(store) for store in stores))
        assert await stores[0]["counter"] == [LARGE, 160]
        for store in stores:
            await store.aclose()

    asyncio.run(main())
