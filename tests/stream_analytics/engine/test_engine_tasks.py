"""Tasks that end inside the engine: every caller gets a result or an error, and nothing hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.stream_analytics.support import PATIENCE_S, Run, process_of

from lo_kvs.kvs import KVS, InMemoryKVS, KVSError, Store, Unavailable
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.stream_analytics.pipeline import Pipeline


@student_event_reducer(null_state={"count": 0})
async def count(event: Any, state: Any) -> Any:
    state["count"] += 1
    return state, state


@student_event_reducer(null_state={"count": 0})
async def count_in_a_task(event: Any, state: Any) -> Any:
    await asyncio.sleep(0)
    state["count"] += 1
    return state, state


EVENT = {
    "client": {"event": "x"},
    "metadata": {"source": "test", "auth": {"safe_user_id": "s1"}},
}
OURS = ("Engine.", "StateSlot.")


def tasks_of_the_engine() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith(OURS)]


@pytest.mark.parametrize("reducer", [count, count_in_a_task], ids=["at once", "in a task"])
@pytest.mark.parametrize("batch", [False, True], ids=["events", "batch"])
def test_tasks_of_the_engine_are_cancelled(run: Run, reducer: Any, batch: bool) -> None:
    """In each iteration of the event loop that has a task, also before its first step."""

    async def scenario(store: Store) -> None:
        pipeline = Pipeline([{"context": "test", "function": reducer}])

        async def call(turns: int) -> list[Any]:
            metadata = {"source": "test", "auth": {"safe_user_id": f"s{turns}"}}
            event = {**EVENT, "metadata": metadata}  # its state has to be read first
            if batch:
                return list(await pipeline.process_batch([event] * 5))
            calls = (pipeline.process(event) for _ in range(5))
            return list(await asyncio.gather(*calls, return_exceptions=True))

        lost = 0
        for turns in range(12):
            calling = asyncio.create_task(call(turns))
            for _ in range(turns):
                await asyncio.sleep(0)
            cancelled = tasks_of_the_engine()
            for task in cancelled:
                task.cancel()
            for result in await asyncio.wait_for(calling, PATIENCE_S):
                assert result in (None, 1) or isinstance(result, Unavailable), result
                lost += isinstance(result, Unavailable)
            assert await asyncio.wait_for(call(turns), PATIENCE_S) == [None if batch else 1] * 5
        assert lost

    run(scenario)


@pytest.mark.parametrize("reducer", [count, count_in_a_task], ids=["at once", "in a task"])
def test_callers_that_are_cancelled_with_the_tasks(run: Run, reducer: Any) -> None:
    async def scenario(store: Store) -> None:
        for turns in range(6):
            process = await process_of(reducer, f"s{turns}")
            callers = [asyncio.create_task(process(EVENT)) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in [*callers, *tasks_of_the_engine()]:
                task.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            assert (await asyncio.wait_for(process(EVENT), PATIENCE_S))["count"] in range(1, 7)

    run(scenario)


class Ends(BaseException):
    """An error that no `except Exception` catches."""


@pytest.mark.parametrize("error", [GeneratorExit, Ends, asyncio.CancelledError, StopAsyncIteration])
@pytest.mark.parametrize("in_a_task", [False, True])
def test_unusual_errors_fail_only_their_event(run: Run, error: Any, in_a_task: bool) -> None:
    @student_event_reducer(null_state={"count": 0})
    async def at_once(event: Any, state: Any) -> Any:
        state["count"] += 1
        if event == "bad":
            raise error
        return state, state

    @student_event_reducer(null_state={"count": 0})
    async def in_task(event: Any, state: Any) -> Any:
        await asyncio.sleep(0)
        return await at_once.__wrapped__(event, state)  # type: ignore[attr-defined]

    async def scenario(_: Store) -> None:
        process = await process_of(in_task if in_a_task else at_once)
        sending = (process(event) for event in ("a", "bad", "b", "bad", "c"))
        results = await asyncio.gather(*sending, return_exceptions=True)
        assert [type(result) for result in results] == [dict, error, dict, error, dict]
        assert results[-1] == {"count": 3}

    run(scenario)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("in_a_task", [False, True], ids=["at once", "in a task"])
@pytest.mark.parametrize("batch", [False, True], ids=["events", "batch"])
@pytest.mark.parametrize("bad", [0, 1, 7])
def test_a_reducer_that_ends_the_process(
    open_store: Callable[[], Store], error: Any, in_a_task: bool, batch: bool, bad: int
) -> None:
    """The event loop raises the error; all other callers get their results, the store closes."""
    seen = 0
    results: list[Any] = []
    closed: list[bool] = []

    async def body(event: Any, state: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == bad + 1:
            raise error
        state["count"] += 1
        return state, state

    async def with_await(event: Any, state: Any) -> Any:
        await asyncio.sleep(0)
        return await body(event, state)

    reducer = student_event_reducer({"count": 0}, qualname_override="ends")(
        with_await if in_a_task else body
    )

    async def call(number: int, pipeline: Pipeline) -> None:
        metadata = {"source": "test", "auth": {"safe_user_id": f"s{number % 2}"}}
        event = {"client": {"event": "x"}, "metadata": metadata}
        for _ in range(number):
            await asyncio.sleep(0)
        try:
            if batch:
                results.extend(await pipeline.process_batch([event, event]))
            else:
                results.append(await pipeline.process(event))
        except (asyncio.CancelledError, KVSError, error) as raised:
            results.append(raised)
            raise

    async def main() -> None:
        async with open_store() as store:
            KVS.add_item("default", store)
            pipeline = Pipeline([{"context": "test", "function": reducer}])
            calls = (call(number, pipeline) for number in range(8))
            await asyncio.gather(*calls, return_exceptions=True)
        closed.append(True)

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    with pytest.raises(error):
        loop.run_until_complete(task)
    if not batch and not closed:  # who sent that event raises it, too
        with pytest.raises(error):
            loop.run_until_complete(task)
    if not closed:
        loop.run_until_complete(asyncio.wait_for(task, PATIENCE_S))
    loop.close()
    assert closed == [True]
    assert sum(isinstance(result, error) for result in results) == 1
    assert len(results) == (16 if batch else 8)


def run_nested(work: Any) -> Any:
    """Runs an event loop nested in the running one, which pauses."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    inner = asyncio.new_event_loop()
    try:
        return inner.run_until_complete(asyncio.wait_for(work, PATIENCE_S))
    finally:
        inner.close()
        asyncio._set_running_loop(outer)


@pytest.mark.parametrize("woken", [False, True])
def test_nested_event_loop(woken: bool) -> None:
    async def main() -> None:
        KVS.add_item("default", InMemoryKVS())
        pipeline = Pipeline([{"context": "test", "function": count}])
        process = await process_of(count)
        if woken:
            assert await process(EVENT) == {"count": 1}
        before = 1 if woken else 0

        async def inner() -> Any:
            return await process(EVENT)

        assert run_nested(inner()) == {"count": before + 1}
        assert run_nested(pipeline.process(EVENT)) == 1
        assert run_nested(pipeline.process_batch([EVENT])) == [None]
        assert await process(EVENT) == {"count": before + 4}

    asyncio.run(main())
