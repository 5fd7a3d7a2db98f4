"""The limits of an engine, and that its callers wait when it is full."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from lo_kvs import settings
from lo_kvs.kvs import Change, InMemoryKVS, Outcome
from lo_kvs.kvs.backend import Submit
from lo_kvs.prestartup import StartupCheck
from lo_kvs.stream_analytics.engine.engine import Engine, engine_for
from lo_kvs.stream_analytics.engine.fold import Reducer, StateKeys
from lo_kvs.stream_analytics.limits import Limits, limits_startup_check


async def count(event: Any, state: Any) -> tuple[Any, Any]:
    return state + 1, state + 1


COUNT = Reducer("count", count, b"0")


def keys(name: str) -> StateKeys:
    return StateKeys(f"Internal,count,{name}", f"External,count,{name}")


class DelayedStore(InMemoryKVS):
    """A store that delays its answers until the test releases them."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.reads = 0
        self.then: Callable[[], object] = int

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        self.reads += len(keys)
        return await super().read(keys)

    def submitter_for(self, guard: str) -> Submit:
        return self.later

    def later(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        async def later() -> None:
            await self.free.wait()
            (outcome,) = await self.commit([change])
            done(outcome)
            self.then()

        self.task = asyncio.get_running_loop().create_task(later())


@pytest.fixture
def block() -> Iterator[dict[str, Any]]:
    before = settings.settings.get("reducers")
    block: dict[str, Any] = {}
    settings.settings["reducers"] = block
    yield block
    del settings.settings["reducers"]
    if before is not None:
        settings.settings["reducers"] = before


def test_limits_come_from_the_settings(block: dict[str, Any]) -> None:
    assert Limits.from_settings() == Limits()
    block.update(cache_bytes=0, waiting_events=1)
    limits_startup_check()
    assert Limits.from_settings() == Limits(cache_bytes=0, waiting_events=1)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("cache_bytes", -1, "reducers.cache_bytes: expected a whole number, 0 or more, got -1"),
        ("waiting_events", 0, "reducers.waiting_events: expected a whole number, 1 or more, got 0"),
        ("waiting_events", "9", "expected a whole number, 1 or more, got '9'"),
        ("waiting_events", True, "expected a whole number, 1 or more, got True"),
        ("cache_byte", 1, "unknown option 'cache_byte'; did you mean cache_bytes?"),
        ("lanes", 1, "unknown option 'lanes'; known are cache_bytes, waiting_events"),
    ],
)
def test_invalid_limits(block: dict[str, Any], option: str, value: object, message: str) -> None:
    block[option] = value
    with pytest.raises(StartupCheck) as fault:
        limits_startup_check()
    assert message in str(fault.value)


def test_callers_wait_when_too_many_events_are_queued() -> None:
    async def main() -> None:
        store = DelayedStore()
        engine = Engine(store, Limits(waiting_events=3))
        order: list[int] = []

        async def caller(number: int) -> int:
            if engine.backpressure.is_full():
                await engine.backpressure.acquire()
            order.append(number)
            return await engine.process(COUNT, keys("one"), {"number": number})  # type: ignore[return-value]

        callers = [asyncio.create_task(caller(number)) for number in range(10)]
        for _ in range(20):
            await asyncio.sleep(0)
        assert order == [0, 1, 2]  # the others have not even been taken in
        callers[4].cancel()
        store.free.set()
        counts = await asyncio.gather(*callers[:4], *callers[5:])
        assert counts == list(range(1, 10))
        assert order == [0, 1, 2, 3, 5, 6, 7, 8, 9]  # who came first went first
        assert not engine.backpressure.is_full()

    asyncio.run(main())


def test_caller_cancelled_when_admitted_releases_its_slot() -> None:
    async def main() -> None:
        store = DelayedStore()
        engine = Engine(store, Limits(waiting_events=1))
        first = engine.process(COUNT, keys("one"), {})
        waiting = asyncio.create_task(engine.backpressure.acquire())
        await asyncio.sleep(0)
        store.then = waiting.cancel  # when it has been let in and has not gone on yet
        store.free.set()
        await first
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not engine.backpressure.is_full()
        assert await engine.process(COUNT, keys("one"), {}) == 2

    asyncio.run(main())


@pytest.mark.parametrize(("cache_bytes", "reads"), [(0, 30), (1_000_000, 10)])
def test_states_are_cached_up_to_the_limit(cache_bytes: int, reads: int) -> None:
    async def main() -> None:
        store = DelayedStore()
        store.free.set()
        engine = Engine(store, Limits(cache_bytes=cache_bytes))
        for _ in range(3):
            for name in range(10):
                await engine.process(COUNT, keys(str(name)), {})
        assert store.reads == reads

    asyncio.run(main())


def test_states_of_a_closed_store_are_evicted() -> None:
    """A process that reloads its settings does not keep the states of the old stores."""

    async def main() -> None:
        first = InMemoryKVS()
        assert engine_for(first) is engine_for(first)
        gone = weakref.ref(first)
        await first.aclose()
        del first
        second = InMemoryKVS()
        kept = engine_for(second)
        gc.collect()
        assert gone() is None
        assert engine_for(second) is kept

    asyncio.run(main())
