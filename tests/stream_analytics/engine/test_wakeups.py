"""Many callers are woken in one callback, each as asyncio would have woken it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from lo_kvs.stream_analytics.engine.wakeups import HAS_CALLBACKS, WAKEUPS_PER_ROUND, Failed, Wakeups

WHO: contextvars.ContextVar[int] = contextvars.ContextVar("WHO")


def test_futures_expose_their_callbacks() -> None:
    """Otherwise everything works, but no faster than with asyncio."""
    assert HAS_CALLBACKS


def test_all_are_woken_in_order_with_their_own_context() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        wakeups = Wakeups(loop, list)
        futures = [loop.create_future() for _ in range(50)]
        seen: list[Any] = []
        turns = 0

        async def wait(number: int) -> None:
            WHO.set(number)
            try:
                answer = await futures[number]
            except LookupError as error:
                answer = error.args[0]
            seen.append((WHO.get(), answer, turns))

        tasks = [asyncio.create_task(wait(number)) for number in range(50)]
        await asyncio.sleep(0)

        def turn() -> None:
            nonlocal turns
            turns += 1
            if len(seen) < 50:
                loop.call_soon(turn)

        for number, future in enumerate(futures):
            failed = Failed(LookupError(-number))
            wakeups.answer(future, failed if number % 2 else number)
        loop.call_soon(turn)
        assert not any(future.done() for future in futures)  # no caller runs immediately
        await asyncio.gather(*tasks)
        assert seen == [(n, -n if n % 2 else n, 0) for n in range(50)]

    asyncio.run(scenario())


def test_submitted_work_runs_after_each_round() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        woken: list[int] = []
        done_after: list[int] = []
        wakeups = Wakeups(loop, lambda: done_after.append(len(woken)))

        async def wait(future: asyncio.Future[int]) -> None:
            woken.append(await future)
            assert wakeups.waking

        count = 2 * WAKEUPS_PER_ROUND + 1
        futures = [loop.create_future() for _ in range(count)]
        tasks = [asyncio.create_task(wait(future)) for future in futures]
        await asyncio.sleep(0)
        for number, future in enumerate(futures):
            wakeups.answer(future, number)
        await asyncio.gather(*tasks)
        assert not wakeups.waking
        assert woken == list(range(count))
        assert done_after == [WAKEUPS_PER_ROUND, 2 * WAKEUPS_PER_ROUND, count]

    asyncio.run(scenario())


def test_cancelled_callers_are_skipped() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        wakeups = Wakeups(loop, list)
        future = loop.create_future()

        async def wait() -> Any:
            return await future

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        wakeups.answer(future, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.cancelled()

    asyncio.run(scenario())


def test_caller_cancelled_by_an_earlier_caller() -> None:
    """Both have their results by then."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        wakeups = Wakeups(loop, list)
        first, second = wakeups.future(), wakeups.future()

        async def cancel() -> None:
            await first
            task.cancel()

        async def wait() -> Any:
            return await second

        cancelling = asyncio.create_task(cancel())
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        wakeups.answer(first, 1)
        wakeups.answer(second, 2)
        await cancelling
        with pytest.raises(asyncio.CancelledError):
            await task
        assert second.result() == 2

    asyncio.run(scenario())


def test_futures_created_ahead_are_not_reused() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        wakeups = Wakeups(loop, list)
        first = [wakeups.future() for _ in range(WAKEUPS_PER_ROUND + 1)]
        new: list[asyncio.Future[int]] = []

        async def wait(future: asyncio.Future[int]) -> None:
            await future
            new.extend([wakeups.future(), wakeups.future()])  # one more than was likely

        tasks = [asyncio.create_task(wait(future)) for future in first]
        await asyncio.sleep(0)
        for future in first:
            wakeups.answer(future, 1)
        await asyncio.gather(*tasks)
        assert len({id(future) for future in first + new}) == 3 * len(first)
        assert not any(future.done() for future in new)
        assert {future.get_loop() for future in new} == {loop}

    asyncio.run(scenario())


def test_other_ways_to_wait_for_a_future() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        wakeups = Wakeups(loop, list)
        several, unused = loop.create_future(), loop.create_future()
        called: list[Any] = []
        several.add_done_callback(lambda future: called.append(future.result()))
        several.add_done_callback(lambda future: called.append(-future.result()))
        gathered = asyncio.gather(several, unused)
        for future in (several, unused):
            wakeups.answer(future, 7)
        assert list(await gathered) == [7, 7]
        assert called == [7, -7]
        assert await unused == 7

    asyncio.run(scenario())


def test_failing_callback_is_reported_and_stops_no_other() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reported: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reported.append(context))
        wakeups = Wakeups(loop, list)
        bad, good = loop.create_future(), loop.create_future()

        def fail(future: Any) -> None:
            raise LookupError(future.result())

        bad.add_done_callback(fail)
        wakeups.answer(bad, 1)
        wakeups.answer(good, 2)
        assert await good == 2
        assert [str(context["exception"]) for context in reported] == ["1"]

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [3, WAKEUPS_PER_ROUND + 2])
def test_task_that_ends_the_process_leaves_no_caller_waiting(count: int) -> None:
    """Neither callers with a result, nor callers without one."""
    loop = asyncio.new_event_loop()
    answers: list[int] = []
    done_after: list[list[int]] = []
    wakeups = Wakeups(loop, lambda: done_after.append(answers.copy()))
    futures = [loop.create_future() for _ in range(count)]

    async def wait(number: int) -> None:
        answers.append(await futures[number])
        if number == 1:
            raise KeyboardInterrupt

    async def answer_all() -> None:
        for number, future in enumerate(futures):
            wakeups.answer(future, number)

    tasks = [loop.create_task(wait(number)) for number in range(count)]
    tasks.append(loop.create_task(answer_all()))
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    assert not wakeups.waking
    loop.run_until_complete(asyncio.wait(tasks, timeout=10))
    assert answers == list(range(count))
    assert done_after[0] == [0, 1]  # what those had left to do is done as well
    with pytest.raises(KeyboardInterrupt):
        tasks[1].result()
    loop.close()
