"""The three kinds of store that reducers run on, and an event loop to run them in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.stream_analytics.support import PATIENCE_S, Run

from lo_kvs.kvs import KVS, FilesystemKVS, InMemoryKVS, PersistentRedisKVS, Store
from lo_kvs.redis_connection import RedisSettings

T = TypeVar("T")

KINDS = ("stub", "filesystem", "redis")


@pytest.fixture(params=KINDS)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the test's store, on the same data each time; a closed stub has lost its data."""
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
        return lambda: PersistentRedisKVS(connection=RedisSettings(url=url))
    if request.param == "filesystem":
        return lambda: FilesystemKVS(tmp_path / "kvs", fsync=False)
    return InMemoryKVS


@pytest.fixture(autouse=True)
def no_store_stays_configured() -> Iterator[None]:
    yield
    for name in KVS.names():
        KVS.remove_item(name)


@pytest.fixture
def run(open_store: Callable[[], Store]) -> Run:
    """Runs a scenario with the test's store, and fails for what went wrong unnoticed."""

    def run_on(scenario: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        async def running() -> T:
            async with open_store() as store:
                return await run_with(store, scenario)

        return asyncio.run(running())

    return run_on


@pytest.fixture
def run_stub() -> Run:
    """The same on the stub alone, for what does not depend on the store."""

    def run_on(scenario: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        return asyncio.run(run_with(InMemoryKVS(), scenario))

    return run_on


async def run_with(store: Store, scenario: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    unnoticed: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unnoticed.append(context))
    KVS.add_item("default", store)
    async with asyncio.timeout(PATIENCE_S):
        result = await scenario(store)
    assert unnoticed == []
    return result
