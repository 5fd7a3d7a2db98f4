"""Many who wait are woken in one handle, and each as asyncio would have woken it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest

from lo_kvs.stream_analytics.engine.wakeups import AT_A_TIME, TELL, Failed, Wakeups

WHO: contextvars.ContextVar[int] = contextvars.ContextVar("WHO")


def test_python_tells_who_waits() -> None:
    """Else everything works, but no faster than asyncio does it."""
    assert TELL


def test_all_are_woken_in_their_order_with_their_own_context() -> None:
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
        assert not any(future.done() for future in futures)  # nobody runs at once
        await asyncio.gather(*tasks)
        assert seen == [(n, -n if n % 2 else n, 0) for n in range(50)]

    asyncio.run(scenario())


def test_what_they_have_left_to_do_is_done_for_some_at_a_time() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        woken: list[int] = []
        done_after: list[int] = []
        wakeups = Wakeups(loop, lambda: done_after.append(len(woken)))

        async def wait(future: asyncio.Future[int]) -> None:
            woken.append(await future)
            assert wakeups.waking

        count = 2 * AT_A_TIME + 1
        futures = [loop.create_future() for _ in range(count)]
        tasks = [asyncio.create_task(wait(future)) for future in futures]
        await asyncio.sleep(0)
        for number, future in enumerate(futures):
            wakeups.answer(future, number)
        await asyncio.gather(*tasks)
        assert not wakeups.waking
        assert woken == list(range(count))
        assert done_after == [AT_A_TIME, 2 * AT_A_TIME, count]

    asyncio.run(scenario())


def test_who_was_cancelled_is_left_alone() -> None:
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


def test_who_is_cancelled_by_one_who_is_woken_before() -> None:
    """Both have their answers by then."""

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


def test_futures_are_new_ones_also_where_they_were_made_ahead() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        wakeups = Wakeups(loop, list)
        first = [wakeups.future() for _ in range(AT_A_TIME + 1)]
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


def test_who_asks_for_the_answer_in_other_ways() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        wakeups = Wakeups(loop, list)
        several, nobody = loop.create_future(), loop.create_future()
        called: list[Any] = []
        several.add_done_callback(lambda future: called.append(future.result()))
        several.add_done_callback(lambda future: called.append(-future.result()))
        gathered = asyncio.gather(several, nobody)
        for future in (several, nobody):
            wakeups.answer(future, 7)
        assert list(await gathered) == [7, 7]
        assert called == [7, -7]
        assert await nobody == 7

    asyncio.run(scenario())


def test_callback_that_fails_is_told_and_stops_nobody() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        wakeups = Wakeups(loop, list)
        bad, good = loop.create_future(), loop.create_future()

        def fail(future: Any) -> None:
            raise LookupError(future.result())

        bad.add_done_callback(fail)
        wakeups.answer(bad, 1)
        wakeups.answer(good, 2)
        assert await good == 2
        assert [str(context["exception"]) for context in told] == ["1"]

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [3, AT_A_TIME + 2])
def test_task_that_ends_the_process_leaves_nobody_waiting(count: int) -> None:
    """Neither who has its answer already, nor who has none yet."""
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
