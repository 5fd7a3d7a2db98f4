"""A lane: what many tasks hand in leaves in groups, one group at a time.

While one group is on its way, the next one fills; so the slower the way, the larger the
groups. A lane belongs to one event loop, and its work runs in a task of its own: a caller
that is cancelled stops waiting and harms nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from learning_observer.kvs.intake import Intake, deliver
from learning_observer.kvs.waiting import Answer, Item, Queue, Waiting

__all__ = ["Lane", "Waiting"]


class Lane(Generic[Item, Answer]):
    """Carries items in groups.

    carry  takes what it will from the left end of the waiting items, at least one, and
           returns them with an answer for each; it never raises

    submit, close  as of `Intake`
    """

    def __init__(
        self,
        carry: Callable[
            [Queue[Item, Answer]],
            Awaitable[tuple[list[Waiting[Item, Answer]], Sequence[Answer]]],
        ],
    ) -> None:
        self._carry = carry
        self._intake = Intake(self._begin)
        self._task: asyncio.Task[None] | None = None
        self.submit = self._intake.submit
        self.close = self._intake.close

    async def idle(self) -> None:
        """Wait until everything that was handed in has been answered."""
        while self._task is not None:
            await asyncio.wait([self._task])

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        waiting: Queue[Item, Answer] = self._intake.waiting
        try:
            while waiting:
                deliver(*await self._carry(waiting))
        finally:
            self._task = None
            self._intake.busy = False
