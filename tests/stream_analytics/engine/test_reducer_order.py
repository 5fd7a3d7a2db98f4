"""Order per key, independence between keys, reducers that await, cancelled callers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.stream_analytics.support import (
    PATIENCE_S,
    GatedStore,
    Run,
    halves,
    process_of,
    send,
    send_at_once,
)

from lo_kvs.kvs import KVS, Store
from lo_kvs.stream_analytics.helpers import kvs_pipeline


@kvs_pipeline(null_state=[])
async def collect(event: Any, state: Any) -> tuple[Any, Any]:
    return [*state, event], [*state, event]


@kvs_pipeline(null_state=[])
async def collect_slowly(event: Any, state: Any) -> tuple[Any, Any]:
    await asyncio.sleep(0.002 if event % 3 == 0 else 0)
    return [*state, event], [*state, event]


@pytest.mark.parametrize("reducer", [collect, collect_slowly])
def test_events_of_one_key_keep_their_order(run: Run, reducer: Any) -> None:
    async def scenario(store: Store) -> None:
        results = await send_at_once(reducer, *range(20))
        assert results == [list(range(n + 1)) for n in range(20)]
        results = await send_at_once(reducer, *range(20, 40))
        assert results[-1] == list(range(40))
        assert await halves(store, reducer) == [list(range(40))] * 2

    run(scenario)


def test_more_events_than_one_fold_takes_keep_their_order(run: Run) -> None:
    @kvs_pipeline(null_state=0)
    async def last(event: Any, state: Any) -> tuple[Any, Any]:
        return event, [state, event]

    async def scenario(store: Store) -> None:
        results = await send_at_once(last, *range(1, 1001))
        assert results == [[n - 1, n] for n in range(1, 1001)]

    run(scenario)


def test_reducer_that_awaits_delays_its_own_key_only(run: Run) -> None:
    released = asyncio.Event()

    @kvs_pipeline(null_state=0)
    async def wait_for_s1(event: Any, state: Any) -> tuple[Any, Any]:
        if event == "wait":
            await released.wait()
        return state + 1, state + 1

    async def scenario(store: Store) -> None:
        await send(wait_for_s1, "warm")
        s1 = asyncio.create_task(send_at_once(wait_for_s1, "wait", "next"))
        for n in range(1, 4):
            assert await send_at_once(wait_for_s1, "go", student="s2") == [n]
            assert await send_at_once(collect, n, student="s1") == [list(range(1, n + 1))]
        assert not s1.done()
        released.set()
        assert await asyncio.wait_for(s1, PATIENCE_S) == [2, 3]

    run(scenario)


def test_timeout_inside_a_reducer_is_handled_by_the_reducer(run: Run) -> None:
    @kvs_pipeline(null_state=0)
    async def impatient(event: Any, state: Any) -> tuple[Any, Any]:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(0 if event == "fast" else PATIENCE_S)
        except TimeoutError:
            return state + 100, state + 100
        return state + 1, state + 1

    async def scenario(store: Store) -> None:
        events = ["slow", "fast", "slow"]
        assert await send(impatient, *events) == [100, 101, 201]
        assert await send_at_once(impatient, *events) == [301, 302, 402]

    run(scenario)


def test_timeout_that_a_reducer_does_not_catch_is_its_error(run_stub: Run) -> None:
    @kvs_pipeline(null_state=0)
    async def impatient(event: Any, state: Any) -> tuple[Any, Any]:
        async with asyncio.timeout(0.01 if event == "slow" else None):
            await asyncio.sleep(PATIENCE_S if event == "slow" else 0)
        return state + 1, state + 1

    async def scenario(store: Store) -> None:
        slow, fast, again = await send_at_once(impatient, "slow", "fast", "slow")
        assert isinstance(slow, TimeoutError)
        assert isinstance(again, TimeoutError)
        assert fast == 1
        assert await send(impatient, "fast") == [2]

    run_stub(scenario)


class ReducerError(Exception):
    """The error that parts of a reducer raise in these tests."""


@pytest.mark.parametrize("first", ["quick", "parts", "unfit part"])
@pytest.mark.parametrize("together", [True, False])
def test_task_group_inside_a_reducer(run: Run, first: str, together: bool) -> None:
    """Also if earlier events used none, and if one of its tasks fails."""

    async def part(number: int, unfit: bool) -> int:
        await asyncio.sleep(0)
        if unfit:
            raise ReducerError(number)
        return number

    @kvs_pipeline(null_state=0)
    async def grouped(event: Any, state: Any) -> tuple[Any, Any]:
        if event == "quick":
            return state + 1, state + 1
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part(n, event == "unfit part")) for n in (10, 20)]
        total = state + sum(task.result() for task in tasks)
        return total, total

    async def scenario(store: Store) -> None:
        events = [first, "quick", "unfit part", "parts", "quick", "unfit part", "quick"]
        results: list[Any] = []
        if together:
            results = await send_at_once(grouped, *events)
        else:
            for event in events:
                results += await send_at_once(grouped, event)
        expected: list[Any] = []
        total = 0
        for event, result in zip(events, results, strict=True):
            if event == "unfit part":
                assert isinstance(result, ExceptionGroup), f"{event}: {result!r}"
                assert all(isinstance(error, ReducerError) for error in result.exceptions)
                continue
            total += 1 if event == "quick" else 30
            expected.append(total)
        assert [result for result in results if not isinstance(result, Exception)] == expected
        assert await halves(store, grouped) == [total, total]
        # Whatever carries the changes of other keys is unharmed.
        assert await send_at_once(collect, "x", student="s2") == [["x"]]

    run(scenario)


def test_cancelled_caller_does_not_affect_others(run: Run) -> None:
    released = asyncio.Event()

    @kvs_pipeline(null_state=[])
    async def wait(event: Any, state: Any) -> tuple[Any, Any]:
        await released.wait()
        return [*state, event], [*state, event]

    async def scenario(store: Store) -> None:
        process = await process_of(wait)
        callers = [asyncio.create_task(process(event, {})) for event in "abcd"]
        await asyncio.sleep(0.01)
        callers[0].cancel()
        callers[2].cancel()
        released.set()
        results: list[Any] = await asyncio.gather(*callers, return_exceptions=True)
        assert [type(result) for result in results[::2]] == [asyncio.CancelledError] * 2
        # Their events may be applied or not, but b and d are, each once, and in order.
        assert results[1][-1] == "b"
        assert results[3][-1] == "d"
        final = await process("e", {})
        assert sorted(final) == final
        assert len(set(final)) == len(final)
        assert {"b", "d", "e"} <= set(final) <= set("abcde")

    run(scenario)


def test_caller_that_times_out_on_a_slow_store_does_not_affect_others(run_stub: Run) -> None:
    async def scenario(_: Store) -> None:
        store = GatedStore()
        KVS.add_item("default", store)
        await send(collect, "a")
        process = await process_of(collect)
        store.gate.clear()
        other = asyncio.create_task(process("b", {}))
        await asyncio.sleep(0)  # from Python 3.12 on, wait_for needs no task, and would be first
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process("c", {}), 0.01)
        last = asyncio.create_task(process("d", {}))
        await asyncio.sleep(0)
        store.gate.set()
        assert await other == ["a", "b"]
        assert (await last)[-1] == "d"
        events, shown = await halves(store, collect)
        assert events == shown
        assert events in (["a", "b", "c", "d"], ["a", "b", "d"])

    run_stub(scenario)


def test_queued_events_of_one_key_are_written_together(run_stub: Run) -> None:
    async def scenario(_: Store) -> None:
        store = GatedStore()
        KVS.add_item("default", store)
        process = await process_of(collect)
        await process(0, {})
        store.gate.clear()
        callers = [asyncio.create_task(process(n, {})) for n in range(1, 41)]
        await asyncio.sleep(0.01)
        store.gate.set()
        assert await asyncio.gather(*callers) == [list(range(n + 1)) for n in range(1, 41)]
        assert len(store.commits) <= 4  # the first event, those on their way, the rest
        assert await halves(store, collect) == [list(range(41))] * 2

    run_stub(scenario)


def test_cached_state_is_read_once(run_stub: Run) -> None:
    async def scenario(_: Store) -> None:
        store = GatedStore()
        KVS.add_item("default", store)
        students = [f"student {n}" for n in range(30)]
        for n in range(1, 4):
            await asyncio.gather(*(send(collect, n, student=student) for student in students))
        read = [key for keys in store.reads for key in keys]
        assert len(read) == len(set(read)) == 30
        assert len(store.reads) <= 2  # together, not one by one

    run_stub(scenario)
