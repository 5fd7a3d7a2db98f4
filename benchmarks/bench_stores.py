"""Benchmarks of the stores' calls by 64 concurrent tasks, on each type of store.

    pytest benchmarks/bench_stores.py --benchmark-only

A round is 64 calls. Files are not synced to the disk one by one (fsync: false): disks differ
more than anything measured here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lo_kvs.kvs import FilesystemKVS, InMemoryKVS, PersistentRedisKVS, Store
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.server import RedisServer

TASKS: Final = 64
VALUE: Final[dict[str, Any]] = {"count": 1, "note": "n" * 280}
ROUNDS: Final = 50
KEYS: Final = [f"Internal,benchmark.count,STUDENT:{number}" for number in range(TASKS)]


class Place:
    """A store with a value under each of KEYS, and the event loop that it is used in."""

    def __init__(self, kind: str, store: Store) -> None:
        self.kind = kind
        self.store = store
        self.loop = asyncio.new_event_loop()
        self.run(store.multiset(dict.fromkeys(KEYS, VALUE)))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def close(self) -> None:
        self.run(self.store.aclose())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["stub", "filesystem", "redis"])
def place(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Iterator[Place]:
    stores: dict[str, Callable[[], Store]] = {
        "stub": InMemoryKVS,
        "filesystem": lambda: FilesystemKVS(tmp_path / "kvs", fsync=False),
        "redis": lambda: PersistentRedisKVS(connection=RedisSettings(url=server.url)),
    }
    place = Place(request.param, stores[request.param]())
    yield place
    place.close()


def timed(
    benchmark: BenchmarkFixture, place: Place, call: Callable[[str], Coroutine[Any, Any, Any]]
) -> None:
    benchmark.group = f"{place.kind}, {TASKS} tasks"

    async def together() -> None:
        await asyncio.gather(*map(call, KEYS))

    pedantic: Any = benchmark.pedantic  # it has no types
    pedantic(lambda: place.run(together()), rounds=ROUNDS, warmup_rounds=3)


def test_get(benchmark: BenchmarkFixture, place: Place) -> None:
    timed(benchmark, place, place.store.get)
    assert place.run(place.store.get(KEYS[0])) == VALUE


def test_set(benchmark: BenchmarkFixture, place: Place) -> None:
    timed(benchmark, place, lambda key: place.store.set(key, {**VALUE, "set": True}))
    assert place.run(place.store.multiget(KEYS)) == [{**VALUE, "set": True}] * TASKS


def test_update(benchmark: BenchmarkFixture, place: Place) -> None:
    def one_more(value: Any) -> Any:
        return {**value, "count": value["count"] + 1}

    timed(benchmark, place, lambda key: place.store.update(key, one_more))
    counts = [value["count"] for value in place.run(place.store.multiget(KEYS))]
    assert counts == [1 + 3 + ROUNDS] * TASKS


def test_multiget(benchmark: BenchmarkFixture, place: Place) -> None:
    benchmark.group = f"{place.kind}, one call for {TASKS} keys"
    pedantic: Any = benchmark.pedantic
    found = pedantic(lambda: place.run(place.store.multiget(KEYS)), rounds=ROUNDS, warmup_rounds=3)
    assert found == [VALUE] * TASKS
