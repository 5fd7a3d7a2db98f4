"""A lane: what many tasks submit leaves in groups, one group at a time.

While one group is on its way, the next one fills; so the slower the way, the larger the
groups. A lane belongs to one event loop, and its work runs in a task of its own: a caller
that is cancelled stops waiting and harms nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from learning_observer.kvs.errors import KVSError, OutcomeUnknown, Unavailable
from learning_observer.kvs.intake import Intake, deliver
from learning_observer.kvs.tasks import start
from learning_observer.kvs.waiting import Answer, Item, Queue, Waiting

__all__ = ["Lane", "Waiting"]


class Lane(Generic[Item, Answer]):
    """Carries items in groups.

    carry  returns an answer for each item of a group; it raises only what ends the lane's task
    most   items of one group

    submit, close  as of `Intake`

    An item is also answered by `OutcomeUnknown` or `Unavailable`, where the task was cancelled.
    """

    def __init__(
        self,
        carry: Callable[[list[Item]], Awaitable[Sequence[Answer | KVSError]]],
        most: int,
    ) -> None:
        self._carry = carry
        self._most = most
        self._intake = Intake(self._begin)
        self._group: list[Waiting[Item, Answer]] = []  # under way
        self._task: asyncio.Task[None] | None = None
        self.submit = self._intake.submit
        self.close = self._intake.close

    async def idle(self) -> None:
        """Wait until everything that was submitted has been answered."""
        while self._intake.busy and self._task is not None:
            await asyncio.wait([self._task])

    def _begin(self) -> None:
        self._task = start(self._run(), self._abandon, self._ended)

    async def _run(self) -> None:
        waiting: Queue[Item, Answer] = self._intake.waiting
        while waiting:
            group = [waiting.popleft() for _ in range(min(len(waiting), self._most))]
            self._group = group
            answers = await self._carry([each[0] for each in group])
            self._group = []
            deliver(group, answers)

    def _abandon(self, error: BaseException) -> None:
        waiting: Queue[Item, Answer] = self._intake.waiting
        group, self._group = self._group, []
        unsent = list(waiting)
        waiting.clear()
        why = f"the task that committed was ended by {error!r}"
        deliver(group, [OutcomeUnknown(f"{why}; the change may have been made")] * len(group))
        deliver(unsent, [Unavailable(f"{why}; nothing was changed")] * len(unsent))

    def _ended(self) -> None:
        self._task = None
        if self._intake.waiting:
            self._begin()
        else:
            self._intake.busy = False
