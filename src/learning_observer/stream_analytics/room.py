"""Room for events: a store that is slow slows its callers down, instead of filling the memory."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """How many events wait in this process, and who waits to bring more.

    events  those that were taken in and not answered yet, and the places that are kept
    """

    __slots__ = ("_callers", "_loop", "_most", "events")

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        self._callers: deque[asyncio.Future[None]] = deque()
        self.events = 0

    def is_full(self) -> bool:
        """Whether whoever brings another event must await `enter()`."""
        return self.events >= self._most or bool(self._callers)

    async def enter(self) -> None:
        """Wait until there is room for an event; who came first goes first."""
        caller: asyncio.Future[None] = self._loop.create_future()
        self._callers.append(caller)
        self._let_in()
        try:
            await caller
        finally:
            if caller.done() and not caller.cancelled():  # its place was kept; now it comes
                self.leave(1)

    def leave(self, events: int) -> None:
        """So many events wait no more."""
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
