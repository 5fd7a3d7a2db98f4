"""A lane: what many tasks submit leaves in groups, one group at a time.

While one group is on its way, the next one fills; so the slower the way, the larger the
groups. A lane belongs to one event loop, and its work runs in a task of its own: a caller
that is cancelled stops waiting and harms nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic

from lo_kvs.kvs.batching.inbox import Inbox, resolve_all
from lo_kvs.kvs.batching.queue import Answer, Item, Pending, PendingQueue
from lo_kvs.kvs.errors import KVSError, OutcomeUnknown, Unavailable
from lo_kvs.kvs.tasks import start

__all__ = ["Batcher", "Pending"]


class Batcher(Generic[Item, Answer]):
    """Carries items in groups.

    carry  returns an answer for each item of a group; it raises only what ends the lane's task
    most   items of one group

    submit, close  as of `Inbox`

    An item is also answered by `OutcomeUnknown` or `Unavailable`, where the task was cancelled.
    """

    def __init__(
        self,
        carry: Callable[[list[Item]], Awaitable[Sequence[Answer | KVSError]]],
        most: int,
    ) -> None:
        self._carry = carry
        self._most = most
        self._inbox = Inbox(self._begin)
        self._group: list[Pending[Item, Answer]] = []  # under way
        self._task: asyncio.Task[None] | None = None
        self.submit = self._inbox.submit
        self.close = self._inbox.close

    async def idle(self) -> None:
        """Wait until everything that was submitted has been answered."""
        while self._inbox.busy and self._task is not None:
            await asyncio.wait([self._task])

    def _begin(self) -> None:
        self._task = start(self._run(), self._abandon, self._ended)

    async def _run(self) -> None:
        waiting: PendingQueue[Item, Answer] = self._inbox.waiting
        while waiting:
            group = [waiting.popleft() for _ in range(min(len(waiting), self._most))]
            self._group = group
            answers = await self._carry([each[0] for each in group])
            self._group = []
            resolve_all(group, answers)

    def _abandon(self, error: BaseException) -> None:
        waiting: PendingQueue[Item, Answer] = self._inbox.waiting
        group, self._group = self._group, []
        unsent = list(waiting)
        waiting.clear()
        why = f"the task that committed was ended by {error!r}"
        resolve_all(group, [OutcomeUnknown(f"{why}; the change may have been made")] * len(group))
        resolve_all(unsent, [Unavailable(f"{why}; nothing was changed")] * len(unsent))

    def _ended(self) -> None:
        self._task = None
        if self._inbox.waiting:
            self._begin()
        else:
            self._inbox.busy = False
