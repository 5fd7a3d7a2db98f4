"""OverdueTimer: sets the deadlines of calls that are queued behind a slow call.

A queued call's deadline starts when it is submitted. Recording that time would cost every call.
So a timer checks 20 times a second while a connection is in use, and sets deadlines only if one
run takes that long. A call that was submitted since the last check counts as submitted at this
check: no call fails too early, and none fails more than 0.1 s late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from lo_kvs.kvs.batching.queue import Pending, PendingQueue

CHECK_EVERY_S: Final = 0.05


class OverdueTimer:
    """Sets the deadlines of queued items while their connection does not answer.

    for_s  how long each item is retried
    late   called with the items whose deadline passed while they were queued, and with the
           seconds that the current run has taken
    slow   called at each check with the seconds that the current run has taken

    busy   whether a run is in progress
    """

    __slots__ = ("_behind", "_for_s", "_late", "_slow", "_start", "_watching", "busy")

    def __init__(
        self,
        for_s: float,
        late: Callable[[list[Pending[Any, Any]], float], None],
        slow: Callable[[float], None],
    ) -> None:
        self._for_s = for_s
        self._late = late
        self._slow = slow
        self.busy = False
        self._start = 0.0
        self._behind = 0
        self._watching = False

    def begin(self, waiting: PendingQueue[Any, Any], now: float) -> None:
        """A run starts; the items in `waiting` are queued behind it."""
        self._start, self._behind, self.busy = now, len(waiting), True
        if not self._watching:
            self._watching = True
            loop = asyncio.get_running_loop()
            loop.call_later(CHECK_EVERY_S, self._check, loop, waiting)

    def end(self, waiting: PendingQueue[Any, Any], *, failed_attempts: int) -> None:
        """The run was answered, after this many failed attempts.

        If there were none, the queued items waited only because the server was busy.
        """
        self.busy = False
        if waiting.timed and not failed_attempts:
            waiting.clear_deadlines()

    def set_deadlines(self, waiting: PendingQueue[Any, Any], now: float) -> None:
        """Set deadlines: from now, or from the start of the run for items that waited already."""
        waiting.set_deadlines(
            now + self._for_s, first=self._behind, of_first=self._start + self._for_s
        )

    def _check(self, loop: asyncio.AbstractEventLoop, waiting: PendingQueue[Any, Any]) -> None:
        if not self.busy:
            self._watching = False
            return
        now = loop.time()
        if now - self._start >= CHECK_EVERY_S:  # it was in progress at the last check
            self.set_deadlines(waiting, now)
            # While the server answers, items wait only because it is busy.
            if now - self._start >= waiting.retry_floor.seconds:
                late = waiting.overdue(now)
                if late:
                    self._late(late, now - self._start)
        self._slow(now - self._start)
        loop.call_later(CHECK_EVERY_S, self._check, loop, waiting)
