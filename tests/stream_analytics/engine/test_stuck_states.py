"""A reducer that does not return blocks only its own state, and for a limited time."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from tests.stream_analytics.support import PATIENCE_S, Run, halves, key_of, process_of

from lo_kvs import settings
from lo_kvs.kvs import KVSError, Store
from lo_kvs.stream_analytics.engine.engine import engine_for
from lo_kvs.stream_analytics.errors import ReducerTimedOut
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.stream_analytics.pipeline import Pipeline


@student_event_reducer(null_state={"count": 0})
async def waits(event: Any, state: Any) -> Any:
    """Waits forever on the event "stuck"."""
    if event["client"]["event"] == "stuck":
        await asyncio.Event().wait()
    state["count"] += 1
    return state, state


@student_event_reducer(null_state={"count": 0})
async def count(event: Any, state: Any) -> Any:
    state["count"] += 1
    return state, state


def event_of(student: str, what: str = "x", source: str = "test") -> dict[str, Any]:
    metadata = {"source": source, "auth": {"safe_user_id": student}}
    return {"client": {"event": what}, "metadata": metadata}


EVENT = event_of("s1")


@pytest.fixture
def block() -> Iterator[dict[str, Any]]:
    before = settings.settings.pop("reducers", None)
    block: dict[str, Any] = {}
    settings.settings["reducers"] = block
    yield block
    del settings.settings["reducers"]
    if before is not None:
        settings.settings["reducers"] = before


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def ended(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("how", ["events", "batches", "pipeline"])
def test_a_stuck_state_does_not_block_others(
    run_stub: Run, block: dict[str, Any], how: str
) -> None:
    block["waiting_events"] = 50

    async def scenario(store: Store) -> None:
        pipeline = Pipeline([{"context": "test", "function": waits}])
        stuck = await process_of(waits, "s1")
        if how == "events":
            tasks = [asyncio.create_task(stuck(event_of("s1", "stuck"))) for _ in range(200)]
        elif how == "batches":
            many = [event_of("s1", "stuck")] * 100
            tasks = [asyncio.create_task(pipeline.process_batch(many)) for _ in range(3)]
        else:
            each = event_of("s1", "stuck")
            tasks = [asyncio.create_task(pipeline.process(each)) for _ in range(200)]
        await turns()
        async with asyncio.timeout(PATIENCE_S):
            for reducer in (waits, count):
                other = await process_of(reducer, "s2")
                assert await other(EVENT) == {"count": 1}
            assert await pipeline.process(event_of("s3")) == 1
            assert await pipeline.process_batch([event_of("s4")] * 60) == [None] * 60
        assert engine_for(store).backpressure.events <= 5
        await ended(tasks)

    run_stub(scenario)


def test_cancelled_callers_release_their_slots(run_stub: Run, block: dict[str, Any]) -> None:
    """Many states are stuck, so that the engine is full; then their callers are cancelled."""
    block["waiting_events"] = 50

    async def scenario(store: Store) -> None:
        tasks: list[asyncio.Task[Any]] = []
        for number in range(20):
            stuck = await process_of(waits, f"s{number}")
            tasks += [asyncio.create_task(stuck(event_of("", "stuck"))) for _ in range(5)]
        await turns()
        backpressure = engine_for(store).backpressure
        assert backpressure.is_full()
        other = asyncio.create_task((await process_of(count, "other"))(EVENT))
        await turns()
        assert not other.done()
        await ended(tasks)
        assert await asyncio.wait_for(other, PATIENCE_S) == {"count": 1}
        assert backpressure.events < 50

    run_stub(scenario)


def test_events_of_cancelled_callers_are_dropped(run_stub: Run) -> None:
    """The engine is not full, and still the events do not pile up."""

    async def scenario(store: Store) -> None:
        engine = engine_for(store)
        process = await process_of(waits)
        first = asyncio.create_task(process(event_of("s1", "stuck")))
        await turns()
        (slot,) = (slot for states in engine._states.values() for slot in states.values())
        kept = asyncio.create_task(process(EVENT))
        for _ in range(40):
            tasks = [asyncio.create_task(process(EVENT)) for _ in range(100)]
            await turns(3)
            await ended(tasks)
        assert len(slot.waiting) // 4 < 2500
        engine.sweep()
        assert len(slot.waiting) // 4 == 2
        assert engine.backpressure.events == 2
        await ended([first, kept])

    run_stub(scenario)


def test_remaining_callers_get_results_in_order(run: Run, block: dict[str, Any]) -> None:
    """Others between them are cancelled while the reducer runs on the first event."""
    go_on = asyncio.Event()
    seen: list[int] = []

    @student_event_reducer(null_state={"count": 0})
    async def slow(event: Any, state: Any) -> Any:
        await go_on.wait()
        seen.append(event)
        state["count"] += 1
        return state, state

    async def scenario(store: Store) -> None:
        process = await process_of(slow)
        tasks = [asyncio.create_task(process(number)) for number in range(30)]
        engine = engine_for(store)
        while not engine._states or not any(  # noqa: ASYNC110
            slot.stop
            for slot in engine._states[slow._kvs_keyed.reducer].values()  # type: ignore[attr-defined]
        ):
            await asyncio.sleep(0)
        await ended(tasks[1::2])
        engine.sweep()
        go_on.set()
        answers = await asyncio.gather(*tasks[::2])
        assert [answer["count"] for answer in answers] == list(range(1, 16))
        assert seen == list(range(0, 30, 2))
        assert engine.backpressure.events == 0

    run(scenario)


@pytest.mark.parametrize("where", ["setting", "decorator"])
def test_a_time_limit_for_a_reducer(run: Run, block: dict[str, Any], where: str) -> None:
    block["reducer_timeout"] = 0.05 if where == "setting" else 3600

    @student_event_reducer(null_state={"count": 0}, timeout=0.05 if where == "decorator" else None)
    async def limited(event: Any, state: Any) -> Any:
        state["count"] += 1
        if event == "stuck":
            await asyncio.Event().wait()
        return state, state

    async def scenario(store: Store) -> None:
        process = await process_of(limited)
        assert await process("a") == {"count": 1}
        results = await asyncio.gather(
            process("b"), process("stuck"), process("c"), return_exceptions=True
        )
        assert results[0] == {"count": 2}
        assert results[2] == {"count": 3}
        error = results[1]
        assert isinstance(error, ReducerTimedOut)
        assert isinstance(error, KVSError)
        assert isinstance(error, TimeoutError)
        assert error.key == key_of(limited)
        assert error.timeout == 0.05
        for named in (error.reducer, key_of(limited), "0.05 s", "reducer_timeout"):
            assert named in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert await halves(store, limited) == [{"count": 3}] * 2

    run(scenario)


def test_a_time_limit_in_a_batch(run_stub: Run, block: dict[str, Any]) -> None:
    block["reducer_timeout"] = 0.05

    async def scenario(store: Store) -> None:
        pipeline = Pipeline([{"context": "test", "function": waits}])
        events = [event_of("s1"), event_of("s1", "stuck"), event_of("s2"), event_of("s1")]
        errors = await pipeline.process_batch(events)
        assert [type(error) for error in errors] == [
            type(None),
            ReducerTimedOut,
            type(None),
            type(None),
        ]
        assert await halves(store, waits) == [{"count": 2}] * 2

    run_stub(scenario)


def test_errors_of_the_reducer_itself_stay_its_own(run_stub: Run, block: dict[str, Any]) -> None:
    block["reducer_timeout"] = 3600

    @student_event_reducer(null_state=None)
    async def fails(event: Any, state: Any) -> Any:
        await asyncio.sleep(0)
        raise event

    async def scenario(_: Store) -> None:
        process = await process_of(fails)
        for error in (TimeoutError("of a web service"), LookupError("x"), asyncio.CancelledError()):
            with pytest.raises(type(error)) as raised:
                await process(error)
            assert raised.value is error

    run_stub(scenario)


@pytest.mark.parametrize("timeout", [0, -1, "5", True, float("nan"), float("inf"), 10**6])
def test_invalid_time_limits(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout: expected seconds between"):
        student_event_reducer(timeout=timeout)
