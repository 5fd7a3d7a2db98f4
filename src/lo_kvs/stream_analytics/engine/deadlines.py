"""When events came, and until when they are tried.

To ask for the time of each event would cost as much as to take it in. So a timer tells it,
twenty times a second while events wait, and looks whether attempts to reach the store failed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

from lo_kvs.kvs.errors import KVSError
from lo_kvs.kvs.store import Store
from lo_kvs.stream_analytics.engine.backpressure import Backpressure

#: How often the time is told, in seconds.
TICK_S: Final = 0.05
#: While somebody waits for room, every so many ticks the places of cancelled callers are freed.
SWEEP_TICKS: Final = 10
#: A conflict that was answered within this time is one of a store that works.
PROMPT_S: Final = 1.0


class EventDeadlines:
    """The time of one engine.

    now          the event loop's time, to a twentieth of a second, while events wait
    troubled_at  when the store was last found not to answer: what had come by then has its
                 deadline from when it came
    ticking      whether the timer runs

    sweep  is called while somebody waits for room: it is to free the places of events whose
           callers were cancelled
    """

    __slots__ = (
        "_backpressure",
        "_failed_attempts",
        "_loop",
        "_store",
        "_sweep",
        "_ticks",
        "now",
        "ticking",
        "unavailable_since",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: Store,
        backpressure: Backpressure,
        sweep: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._store = store
        self._backpressure = backpressure
        self._sweep = sweep
        self._ticks = 0
        self._failed_attempts = 0  # of the store's attempts, those that are known
        self.now: Any = -math.inf
        self.unavailable_since: Any = -math.inf
        self.ticking = False

    def start(self) -> None:
        """An event is about to come, and the timer does not run."""
        self.ticking = True
        self.now = self._loop.time()
        self._failed_attempts = self._store.failed_attempts()
        self._loop.call_later(TICK_S, self._tick)

    def in_trouble(self) -> None:
        """The store has just been found not to answer."""
        self.now = self.unavailable_since = self._loop.time()

    def deadline(self, came: float) -> float | None:
        """Until when an event that came then is tried, if ever."""
        try:
            for_s = self._store.try_for_s()
        except KVSError:  # it was closed: who hands in a change is told
            return None
        return None if for_s is None else came + for_s

    def attempt(self) -> tuple[float, int]:
        """The time, and how many attempts have failed by now; for `is_prompt`."""
        return self._loop.time(), self._store.failed_attempts()

    def is_prompt(self, attempt: tuple[float, int]) -> bool:
        """Whether the store has answered at once since then, so that it is there."""
        began, failed = attempt
        return self._loop.time() - began < PROMPT_S and self._store.failed_attempts() == failed

    def _tick(self) -> None:
        self.now = self._loop.time()
        failed_attempts = self._store.failed_attempts()
        if failed_attempts != self._failed_attempts:
            self._failed_attempts = failed_attempts
            self.unavailable_since = self.now
        self._ticks += 1
        if self._ticks % SWEEP_TICKS == 0 and self._backpressure.is_waited_for():
            self._sweep()
        if self._backpressure.events:
            self._loop.call_later(TICK_S, self._tick)
        else:
            self.ticking = False
