"""Batcher: sends the items that many tasks submit in groups, one group at a time, without retry.

While one group is being processed, the next one fills up. So a slow store gets larger groups. A
batcher belongs to one event loop and works in a task of its own: if a caller is cancelled, the
others are not affected.
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
    """Sends items in groups.

    carry  processes a group and returns one answer per item; an exception ends the task
    most   maximum number of items in one group

    submit, close  as for `Inbox`

    If the task is cancelled, its items are answered with `OutcomeUnknown` or `Unavailable`.
    """

    def __init__(
        self,
        carry: Callable[[list[Item]], Awaitable[Sequence[Answer | KVSError]]],
        most: int,
    ) -> None:
        self._carry = carry
        self._most = most
        self._inbox = Inbox(self._begin)
        self._group: list[Pending[Item, Answer]] = []  # the group that is being processed
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
        why = f"the task that wrote the changes ended with {error!r}"
        resolve_all(group, [OutcomeUnknown(f"{why}. The change may have been made")] * len(group))
        resolve_all(unsent, [Unavailable(f"{why}. Nothing was changed")] * len(unsent))

    def _ended(self) -> None:
        self._task = None
        if self._inbox.waiting:
            self._begin()
        else:
            self._inbox.busy = False
