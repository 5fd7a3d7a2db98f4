"""A lane: what many tasks hand in leaves in groups, one group at a time.

While one group is on its way, the next one fills; so the slower the way, the larger the
groups. A lane belongs to one event loop, and its work runs in a task of its own: a caller
that is cancelled stops waiting and harms nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from learning_observer.kvs.errors import StoreClosed
from learning_observer.kvs.waiting import Answer, Item, Queue, Waiting, deliver

__all__ = ["Lane", "Waiting"]


class Lane(Generic[Item, Answer]):
    """Carries items in groups.

    carry  takes what it will from the left end of the waiting items, at least one, and
           returns them with an answer for each; it never raises
    """

    def __init__(
        self,
        carry: Callable[
            [Queue[Item, Answer]],
            Awaitable[tuple[Sequence[Waiting[Item, Answer]], Sequence[Answer]]],
        ],
    ) -> None:
        self._carry = carry
        self._waiting: Queue[Item, Answer] = Queue()
        self._task: asyncio.Task[None] | None = None
        self._closed = ""

    def submit(
        self, item: Item, done: Callable[[Answer], object], deadline: float | None = None
    ) -> None:
        """Take `item` into the group that leaves next; `done(answer)` is called then.

        With a deadline of its own it leaves with those whose deadlines agree.
        """
        if self._closed:
            raise StoreClosed(self._closed)
        if deadline is None:
            self._waiting.append((item, done))
        else:
            self._waiting.add_timed(item, done, deadline)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def close(self, why: str) -> None:
        """Take nothing more: `submit` raises `StoreClosed` with this text."""
        self._closed = why

    async def idle(self) -> None:
        """Wait until everything that was handed in has been answered."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                deliver(*await self._carry(self._waiting))
        finally:
            self._task = None
