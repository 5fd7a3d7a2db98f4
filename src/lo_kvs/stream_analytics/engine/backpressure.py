"""Backpressure: limits the number of queued events, so that a slow store slows its callers.

The events of one state count only up to a share of the limit. A state whose reducer is stuck
keeps receiving events, and must not block the events of other states.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

#: The events of one state count up to a tenth of the limit, but at least up to four.
STATES_MIN: Final = 10
SHARE_MIN: Final = 4


class Backpressure:
    """Counts the queued events of one engine, and queues callers above the limit.

    events  submitted events without a result yet, plus slots reserved for waiting callers
    share   how many events of one state count at most
    """

    __slots__ = ("_callers", "_events_max", "_loop", "events", "share")

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._events_max = most
        self._callers: deque[asyncio.Future[None]] = deque()
        self.events = 0
        self.share = max(most // STATES_MIN, SHARE_MIN)

    def is_full(self) -> bool:
        """Whether a caller must await `acquire()` before it submits another event."""
        return self.events >= self._events_max or bool(self._callers)

    def has_waiting_callers(self) -> bool:
        """Whether a caller waits in `acquire()`."""
        return bool(self._callers)

    async def acquire(self) -> None:
        """Wait until one more event may be submitted; first come, first served."""
        caller: asyncio.Future[None] = self._loop.create_future()
        self._callers.append(caller)
        self._admit()
        try:
            await caller
        finally:
            if caller.done() and not caller.cancelled():  # the caller now uses its reserved slot
                self.release(1)

    def changed(self, before: int, after: int) -> None:
        """The number of queued events of one state changed from `before` to `after`."""
        events = min(before, self.share) - min(after, self.share)
        if events:
            self.release(events)

    def release(self, events: int) -> None:
        """Free this many slots."""
        self.events -= events
        if self._callers:
            self._admit()

    def _admit(self) -> None:
        free = self._events_max - self.events
        while free > 0 and self._callers:
            caller = self._callers.popleft()
            if not caller.done():  # done means cancelled
                caller.set_result(None)
                self.events += 1  # reserved until the caller runs
                free -= 1
