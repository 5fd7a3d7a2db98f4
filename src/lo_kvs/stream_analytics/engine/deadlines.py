"""Deadlines of events: when each event was submitted, and until when it is retried.

Reading the clock for each event would cost as much as queueing it. So a timer reads it twenty
times a second while events are queued, and checks whether attempts to reach the store failed.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Final

from lo_kvs.kvs.errors import KVSError
from lo_kvs.kvs.store import Store
from lo_kvs.stream_analytics.engine.backpressure import Backpressure

#: Seconds between two readings of the clock.
TICK_S: Final = 0.05
#: While callers wait for backpressure, events of cancelled callers are dropped every so many ticks.
SWEEP_TICKS: Final = 10
#: A conflict reported within this many seconds shows that the store is available.
PROMPT_S: Final = 1.0


class EventDeadlines:
    """The clock and the event deadlines of one engine.

    now                the event loop's time, accurate to 0.05 s while events are queued
    unavailable_since  when the store was last seen unavailable: the deadline of an event
                       submitted before that starts when it was submitted
    ticking            whether the timer runs

    `sweep` is called while callers wait for backpressure. It drops queued events whose callers
    were cancelled.
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
        self._failed_attempts = 0  # the store's count at the last tick
        self.now: Any = -math.inf
        self.unavailable_since: Any = -math.inf
        self.ticking = False

    def start(self) -> None:
        """Start the timer, before an event is queued."""
        self.ticking = True
        self.now = self._loop.time()
        self._failed_attempts = self._store.failed_attempts()
        self._loop.call_later(TICK_S, self._tick)

    def mark_unavailable(self) -> None:
        """The store was just seen unavailable."""
        self.now = self.unavailable_since = self._loop.time()

    def deadline(self, submitted_at: float) -> float | None:
        """The deadline of an event submitted at this time; `None` for no deadline."""
        try:
            for_s = self._store.try_for_s()
        except KVSError:  # the store was closed: submitting the change raises the error
            return None
        return None if for_s is None else submitted_at + for_s

    def attempt(self) -> tuple[float, int]:
        """The time and the number of failed attempts so far, for `is_prompt`."""
        return self._loop.time(), self._store.failed_attempts()

    def is_prompt(self, attempt: tuple[float, int]) -> bool:
        """Whether the store answered promptly since `attempt`, so that it is available."""
        began, failed = attempt
        return self._loop.time() - began < PROMPT_S and self._store.failed_attempts() == failed

    def _tick(self) -> None:
        self.now = self._loop.time()
        failed_attempts = self._store.failed_attempts()
        if failed_attempts != self._failed_attempts:
            self._failed_attempts = failed_attempts
            self.unavailable_since = self.now
        self._ticks += 1
        if self._ticks % SWEEP_TICKS == 0 and self._backpressure.has_waiting_callers():
            self._sweep()
        if self._backpressure.events:
            self._loop.call_later(TICK_S, self._tick)
        else:
            self.ticking = False
