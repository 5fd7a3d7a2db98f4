"""Calls with many keys or large values let other tasks on the event loop run in between."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from time import thread_time
from typing import Any

import pytest

from lo_kvs.copying import copy
from lo_kvs.kvs import FilesystemKVS, InMemoryKVS, PersistentRedisKVS, Store
from lo_kvs.redis_connection import RedisSettings

#: The longest time for which other tasks may wait. It is CPU time of the event loop's thread, so
#: it does not depend on how busy the machine is.
SLICE_MAX_S = 0.03


@pytest.fixture(autouse=True)
def no_garbage_collection() -> Iterator[None]:
    """Garbage collection is not what is measured here."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def longest_slice(call: Callable[[], Awaitable[object]]) -> float:
    """The longest time for which `call` keeps the event loop's thread busy without a break."""
    longest = 0.0
    ended = False

    async def turn() -> None:
        nonlocal longest
        before = thread_time()
        while not ended:
            await asyncio.sleep(0)
            now = thread_time()
            longest = max(longest, now - before)
            before = now

    turning = asyncio.create_task(turn())
    await asyncio.sleep(0)
    kept = await call()
    ended = True
    await turning
    del kept  # freeing it takes time too, but that is up to the caller
    return longest


def stores(kind: str, redis_url: str, folder: Path) -> tuple[Store, int]:
    """A store, and the number of keys that is large for it."""
    if kind == "stub":
        return InMemoryKVS(), 100_000
    if kind == "filesystem":
        return FilesystemKVS(folder, fsync=False), 3_000
    return PersistentRedisKVS(connection=RedisSettings(url=redis_url)), 60_000


@pytest.mark.parametrize("kind", ["stub", "filesystem", "redis"])
def test_many_keys(kind: str, redis_url: str, fast_path: Path) -> None:
    async def run() -> None:
        store, count = stores(kind, redis_url, fast_path / "store")
        items: dict[str, Any] = {
            f"Internal,m.f,STUDENT:s{at}": {"n": at, "text": "x" * 40} for at in range(count)
        }
        file = fast_path / "dump.json"
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "multiset": lambda: store.multiset(items),
            "keys": store.keys,
            "multiget": lambda: store.multiget(items),
            "dump": lambda: store.dump(file),
            "load": lambda: store.load(file),
            "copy": lambda: copy(store, InMemoryKVS()),
            "clear": lambda: store.clear(everything=True),
        }
        async with store:
            slices = {name: await longest_slice(call) for name, call in calls.items()}
        assert {name: held for name, held in slices.items() if held > SLICE_MAX_S} == {}

    asyncio.run(run())


LARGE: dict[str, Any] = {
    "integers": list(range(1_400_000)),
    "objects": {f"k{at}": {"a": [at, "x" * 50], "b": {"c": at}} for at in range(100_000)},
    "text": "x" * 10_000_000,
    "texts": ["é" * 500_000] * 10,
}


@pytest.mark.parametrize("value", LARGE.values(), ids=list(LARGE))
@pytest.mark.parametrize("kind", ["stub", "filesystem", "redis"])
def test_reading_a_value_of_ten_megabytes(
    kind: str, value: Any, redis_url: str, fast_path: Path
) -> None:
    async def run() -> None:
        store, _ = stores(kind, redis_url, fast_path / "store")
        async with store:
            await store.set("large", value)
            found: list[Any] = []

            async def get() -> None:
                found.append(await store.get("large"))
                await asyncio.sleep(0)
                found.extend(await store.multiget(["large", "absent"]))

            assert await longest_slice(get) <= SLICE_MAX_S
            assert found == [value, value, None]

    asyncio.run(run())
