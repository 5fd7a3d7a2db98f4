"""When what waits behind a slow call was handed in.

A call that waits behind others has its deadline from when it was handed in. Noting the time
of each would cost every call; so a timer looks, ten times a second while a wire is in use, and
notes only where one run lasts that long. What came since the look before counts as come at
this look: nobody is told too early, and nobody later than by a tenth of a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

LOOK_EVERY_S: Final = 0.1


class Arrivals(Generic[Item]):
    """The times of the items that wait in a lane, while its wire is in trouble.

    busy      whether a run is under way
    start     when the latest run began
    behind    how many items waited then
    watching  whether the timer runs
    times     of the items at the left end of those that wait: a time, and how many came then
    """

    __slots__ = ("_looked_at", "_noted", "behind", "busy", "start", "times", "watching")

    def __init__(self) -> None:
        self.busy = False
        self.start = 0.0
        self.behind = 0
        self.watching = False
        self.times: deque[tuple[float, int]] = deque()
        self._noted = 0
        self._looked_at = 0.0

    def begin(self, waiting: deque[Item], now: float) -> None:
        """A run begins, and these wait behind it."""
        self.start, self.behind, self.busy = now, len(waiting), True
        if not self.watching:
            self.watching = True
            loop = asyncio.get_running_loop()
            loop.call_later(LOOK_EVERY_S, self._look, loop, waiting)

    def end(self, in_vain: int) -> None:
        """The run was answered, after so many tries in vain.

        After none, what waits did so because there was much to do.
        """
        self.busy = False
        if self.times and not in_vain:
            self.times.clear()
            self._noted = 0

    def _look(self, loop: asyncio.AbstractEventLoop, waiting: deque[Item]) -> None:
        if not self.busy:
            self.watching = False
            return
        now = loop.time()
        if self.start <= self._looked_at:  # the same run as at the look before
            self.note(waiting, now)
        self._looked_at = now
        loop.call_later(LOOK_EVERY_S, self._look, loop, waiting)

    def note(self, waiting: deque[Item], now: float) -> None:
        """Everything that waits has come by now."""
        if not self.times and self.behind:
            self._add(self.start, self.behind)
        if len(waiting) > self._noted:
            self._add(now, len(waiting) - self._noted)

    def _add(self, time: float, number: int) -> None:
        self.times.append((time, number))
        self._noted += number

    def take_oldest(self, waiting: deque[Item]) -> tuple[float, deque[Item]]:
        """Take out of `waiting` those that came first, at one time, and tell that time."""
        time, number = self.times.popleft()
        self._noted -= number
        return time, deque(waiting.popleft() for _ in range(number))

    def put_back(self, waiting: deque[Item], items: deque[Item], time: float) -> None:
        """Put back what was taken and is not carried yet."""
        if items:
            waiting.extendleft(reversed(items))
            self.times.appendleft((time, len(items)))
            self._noted += len(items)
