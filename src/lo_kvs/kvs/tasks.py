"""Start internal tasks so that no caller waits forever if such a task is cancelled or fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)


def start(
    work: Coroutine[Any, Any, None],
    failed: Callable[[BaseException], object],
    ended: Callable[[], object] | None = None,
) -> asyncio.Task[None]:
    """Run `work` in a task of the running event loop.

    failed  called with the exception that ended `work` early: CancelledError, an error, or
            KeyboardInterrupt. It must answer all waiting callers, in the same step, before other
            tasks run. A task that is cancelled before its first step runs nothing of `work`, not
            even a `finally`; `failed` is still called
    ended   called in the task's last step in any case, after `failed`

    Keep a reference to the task: event loops have only weak references to tasks.

    The first step never runs inside this call, whatever the loop's task factory is
    (`asyncio.eager_task_factory`, Python 3.12): callers may be in the middle of a change.
    """
    begun = False

    async def run() -> None:
        nonlocal begun
        begun = True
        try:
            await work
        except BaseException as error:
            failed(error)
            raise
        finally:
            if ended is not None:  # in this step: a callback would run one loop iteration later
                ended()

    def over(task: asyncio.Task[None]) -> None:
        if not begun:
            work.close()
            failed(asyncio.CancelledError())
            if ended is not None:
                ended()
        elif not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of a store failed", exc_info=error)

    # The name helps when inspecting `asyncio.all_tasks()`.
    name = getattr(work, "__qualname__", "a task of a store")
    task = asyncio.Task(run(), loop=asyncio.get_running_loop(), name=name)
    task.add_done_callback(over)
    return task
