"""Room for events: a store that is slow slows its callers down, instead of filling the memory.

The events of one state count up to a share of the room. Those of a state whose reducer is stuck
go on coming, and must leave room for the events of others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

#: The events of one state count up to a tenth of the room, and up to four at least.
STATES_MIN: Final = 10
SHARE_MIN: Final = 4


class Backpressure:
    """How many events wait in this process, and who waits to bring more.

    events  those that were taken in and not answered yet, and the places that are kept
    share   so many events of one state count at most
    """

    __slots__ = ("_callers", "_loop", "_most", "events", "share")

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._callers: deque[asyncio.Future[None]] = deque()
        self.events = 0
        self.share = max(most // STATES_MIN, SHARE_MIN)

    def is_full(self) -> bool:
        """Whether whoever brings another event must await `enter()`."""
        return self.events >= self._most or bool(self._callers)

    def is_waited_for(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._callers)

    async def acquire(self) -> None:
        """Wait until there is room for an event; who came first goes first."""
        caller: asyncio.Future[None] = self._loop.create_future()
        self._callers.append(caller)
        self._let_in()
        try:
            await caller
        finally:
            if caller.done() and not caller.cancelled():  # its place was kept; now it comes
                self.release(1)

    def changed(self, before: int, after: int) -> None:
        """A state had so many events before, and has so many now."""
        events = min(before, self.share) - min(after, self.share)
        if events:
            self.release(events)

    def release(self, events: int) -> None:
        """So many places are free again."""
        self.events -= events
        if self._callers:
            self._let_in()

    def _let_in(self) -> None:
        free = self._most - self.events
        while free > 0 and self._callers:
            caller = self._callers.popleft()
            if not caller.done():  # done: it was cancelled
                caller.set_result(None)
                self.events += 1  # kept for it until it comes
                free -= 1
