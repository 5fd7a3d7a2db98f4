"""When what waits behind a slow call was handed in.

A call that waits behind others has its deadline from when it was handed in. Noting the time
of each would cost every call; so a timer looks, twenty times a second while a wire is in use,
and notes only where one run lasts that long. What came since the look before counts as come at
this look: nobody is told too early, and nobody later than by a tenth of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from lo_kvs.kvs.batching.queue import Pending, PendingQueue

LOOK_EVERY_S: Final = 0.05


class OverdueTimer:
    """Notes the deadlines of what waits while its wire is in trouble.

    for_s  for how long each is tried
    late   is called with those whose time is up while they wait, and with the seconds that
           the run before them has taken
    slow   is called with the seconds that a run has taken, at each look

    busy   whether a run is under way
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
        """A run begins, and these wait behind it."""
        self._start, self._behind, self.busy = now, len(waiting), True
        if not self._watching:
            self._watching = True
            loop = asyncio.get_running_loop()
            loop.call_later(LOOK_EVERY_S, self._look, loop, waiting)

    def end(self, waiting: PendingQueue[Any, Any], *, failed_attempts: int) -> None:
        """The run was answered, after so many tries in vain.

        After none, what waits did so because there was much to do.
        """
        self.busy = False
        if waiting.timed and not failed_attempts:
            waiting.forget()

    def note(self, waiting: PendingQueue[Any, Any], now: float) -> None:
        """Everything that waits has come by now, and what waited already when the run began."""
        waiting.note(now + self._for_s, first=self._behind, of_first=self._start + self._for_s)

    def _look(self, loop: asyncio.AbstractEventLoop, waiting: PendingQueue[Any, Any]) -> None:
        if not self.busy:
            self._watching = False
            return
        now = loop.time()
        if now - self._start >= LOOK_EVERY_S:  # it was under way at the look before
            self.note(waiting, now)
            # While the server answers, what waits does so because there is much to do.
            if now - self._start >= waiting.turn.s:
                late = waiting.overdue(now)
                if late:
                    self._late(late, now - self._start)
        self._slow(now - self._start)
        loop.call_later(LOOK_EVERY_S, self._look, loop, waiting)
