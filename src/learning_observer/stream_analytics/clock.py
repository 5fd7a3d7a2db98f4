"""When events came, and until when they are tried.

To ask for the time of each event would cost as much as to take it in. So a timer tells it,
twenty times a second while events wait, and looks whether attempts to reach the store failed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

from learning_observer.kvs.errors import KVSError
from learning_observer.kvs.store import Store
from learning_observer.stream_analytics.room import Room

#: How often the time is told, in seconds.
TICK_S: Final = 0.05
#: While somebody waits for room, every so many ticks the places of cancelled callers are freed.
SWEEP_TICKS: Final = 10
#: A conflict that was answered within this time is one of a store that works.
PROMPT_S: Final = 1.0


class Clock:
    """The time of one engine.

    now          the event loop's time, to a twentieth of a second, while events wait
    troubled_at  when the store was last found not to answer: what had come by then has its
                 deadline from when it came
    ticking      whether the timer runs

    sweep  is called while somebody waits for room: it is to free the places of events whose
           callers were cancelled
    """

    __slots__ = (
        "_in_vain",
        "_loop",
        "_room",
        "_store",
        "_sweep",
        "_ticks",
        "now",
        "ticking",
        "troubled_at",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: Store,
        room: Room,
        sweep: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._store = store
        self._room = room
        self._sweep = sweep
        self._ticks = 0
        self._in_vain = 0  # of the store's attempts, those that are known
        self.now: Any = -math.inf
        self.troubled_at: Any = -math.inf
        self.ticking = False

    def start(self) -> None:
        """An event is about to come, and the timer does not run."""
        self.ticking = True
        self.now = self._loop.time()
        self._in_vain = self._store.in_vain()
        self._loop.call_later(TICK_S, self._tick)

    def in_trouble(self) -> None:
        """The store has just been found not to answer."""
        self.now = self.troubled_at = self._loop.time()

    def deadline(self, came: float) -> float | None:
        """Until when an event that came then is tried, if ever."""
        try:
            for_s = self._store.try_for_s()
        except KVSError:  # it was closed: who hands in a change is told
            return None
        return None if for_s is None else came + for_s

    def attempt(self) -> tuple[float, int]:
        """The time, and how many attempts have failed by now; for `is_prompt`."""
        return self._loop.time(), self._store.in_vain()

    def is_prompt(self, attempt: tuple[float, int]) -> bool:
        """Whether the store has answered at once since then, so that it is there."""
        began, failed = attempt
        return self._loop.time() - began < PROMPT_S and self._store.in_vain() == failed

    def _tick(self) -> None:
        self.now = self._loop.time()
        in_vain = self._store.in_vain()
        if in_vain != self._in_vain:
            self._in_vain = in_vain
            self.troubled_at = self.now
        self._ticks += 1
        if self._ticks % SWEEP_TICKS == 0 and self._room.is_waited_for():
            self._sweep()
        if self._room.events:
            self._loop.call_later(TICK_S, self._tick)
        else:
            self.ticking = False
