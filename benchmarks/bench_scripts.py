"""Benchmarks of the commit script, in groups of 1 to 250, against plain commands on as many keys.

Also a value of 100 KB by the script, by a transaction, and by a plain SET: Lua hashes every byte,
which a transaction avoids at the price of a second round trip.

    pytest benchmarks/bench_scripts.py --benchmark-only

Each round is one round trip to its own server. Compare only times of the same run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import hiredis
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from redis.asyncio import Redis

from lo_kvs.kvs import Change, Guard
from lo_kvs.kvs.redis.protocol import commit_script
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction, packed_transaction
from lo_kvs.kvs.redis.protocol.round_trips import converse
from lo_kvs.testing.servers.server import RedisServer

GROUPS: Final = (1, 64, 250)
ROUNDS: Final = 200
LARGE: Final = b"x" * 100_000
TEXT: Final = b'{"count":1,"note":"' + b"n" * 280 + b'"}'


class Place:
    """An event loop, and a client in it."""

    def __init__(self, url: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = Redis.from_url(url)
        pool: Any = self.client.connection_pool  # it has no types
        self.connection = self.run(pool.get_connection())

    def run(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.connection.disconnect())
        self.run(self.client.aclose())
        self.loop.close()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with RedisServer() as server:
        place = Place(server.url)
        place.run(place.client.script_load(commit_script.COMMIT.text))
        yield place
        place.close()


class Writer:
    """Packs commits as a writer of ours does, and sends each as a bare EVALSHA."""

    def __init__(self, place: Place, name: str) -> None:
        self._client = place.client
        self._settings = commit_script.WriterSettings(f"__lokvs:writer:{name}".encode())
        self._number = 0

    def call(self, changes: list[Change]) -> commit_script.Call:
        return commit_script.packed_call(self._waiting(changes), [], self._settings, self._number)

    def transaction(self, changes: list[Change]) -> Transaction:
        waiting = self._waiting(changes)
        return packed_transaction(waiting, [], self._settings, self._number, large_bytes=0)

    def _waiting(self, changes: list[Change]) -> Any:
        self._number += 1
        return deque((change, lambda _: None) for change in changes)

    async def send(self, call: commit_script.Call) -> None:
        reader = hiredis.Reader()
        reader.feed(call.by_digest())
        send: Any = self._client.execute_command  # it has no types
        reply = await send(*reader.gets())
        assert reply == [b"c" * len(call.group)]


def keys(count: int) -> list[str]:
    return [f"Internal,benchmark.count,STUDENT:{number}" for number in range(count)]


def rounds(
    benchmark: BenchmarkFixture,
    place: Place,
    group: int,
    prepare: Callable[[], Callable[[], Awaitable[Any]]],
) -> None:
    """Time one round trip a round; `prepare` packs its call before."""
    benchmark.group = f"{group} keys"
    pedantic: Any = benchmark.pedantic  # it has no types
    pedantic(
        lambda call: place.run(call()),
        setup=lambda: ((prepare(),), {}),
        rounds=ROUNDS,
        warmup_rounds=5,
    )


@pytest.mark.parametrize("group", GROUPS)
def test_commit_whatever_stands_there(
    benchmark: BenchmarkFixture, place: Place, group: int
) -> None:
    bare = Writer(place, f"any-{group}")
    changes = [Change(key, Guard.ANY, {key: TEXT}) for key in keys(group)]

    def prepare() -> Callable[[], Awaitable[Any]]:
        call = bare.call(changes)
        return lambda: bare.send(call)

    rounds(benchmark, place, group, prepare)
    assert place.run(place.client.mget(keys(group))) == [TEXT] * group


@pytest.mark.parametrize("group", GROUPS)
def test_commit_where_the_value_is_expected(
    benchmark: BenchmarkFixture, place: Place, group: int
) -> None:
    bare = Writer(place, f"value-{group}")
    place.run(place.client.mset(dict.fromkeys(keys(group), TEXT)))
    changes = [Change(key, TEXT, {key: TEXT, f"External{key}": TEXT}) for key in keys(group)]

    def prepare() -> Callable[[], Awaitable[Any]]:
        call = bare.call(changes)
        return lambda: bare.send(call)

    rounds(benchmark, place, group, prepare)
    assert place.run(place.client.get(f"External{keys(group)[-1]}")) == TEXT


@pytest.mark.parametrize("group", GROUPS)
def test_mset(benchmark: BenchmarkFixture, place: Place, group: int) -> None:
    values = dict.fromkeys(keys(group), TEXT)
    rounds(benchmark, place, group, lambda: lambda: place.client.mset(values))
    assert place.run(place.client.mget(keys(group))) == [TEXT] * group


@pytest.mark.parametrize("group", GROUPS)
def test_mget(benchmark: BenchmarkFixture, place: Place, group: int) -> None:
    place.run(place.client.mset(dict.fromkeys(keys(group), TEXT)))
    rounds(benchmark, place, group, lambda: lambda: place.client.mget(keys(group)))


def test_large_by_script(benchmark: BenchmarkFixture, place: Place) -> None:
    bare = Writer(place, "large")
    place.run(place.client.set("large", LARGE))

    def prepare() -> Callable[[], Awaitable[Any]]:
        call = bare.call([Change("large", LARGE, {"large": LARGE, "shown": TEXT})])
        return lambda: bare.send(call)

    rounds(benchmark, place, 1, prepare)
    benchmark.group = "100 KB"


def test_large_by_transaction(benchmark: BenchmarkFixture, place: Place) -> None:
    bare = Writer(place, "transaction")
    place.run(place.client.set("large", LARGE))
    changes = [Change("large", LARGE, {"large": LARGE, "shown": TEXT})]

    async def commit() -> None:
        assert await converse(place.connection, bare.transaction(changes).rounds()) == ("c", [])

    rounds(benchmark, place, 1, lambda: commit)
    benchmark.group = "100 KB"


def test_large_by_set(benchmark: BenchmarkFixture, place: Place) -> None:
    rounds(benchmark, place, 1, lambda: lambda: place.client.set("large", LARGE))
    benchmark.group = "100 KB"
