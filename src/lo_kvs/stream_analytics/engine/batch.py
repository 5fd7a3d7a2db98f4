"""Batches: many events that are taken in together, for a caller who waits for them all."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from lo_kvs.stream_analytics.engine.wakeups import Wakeups

#: More than the reducers that one event can have.
RANKS: Final = 1 << 16


class Batch:
    """Many events that are taken in together, for a caller who waits for them all.

    errors  for each event `None`, or the error of the first of its reducers that failed
    states  the states that its events belong to, until they are woken
    left    how many of them have not answered yet
    """

    __slots__ = (
        "_complete",
        "_ranks",
        "_stopped",
        "_wakeups",
        "errors",
        "left",
        "states",
    )

    def __init__(self, events: int) -> None:
        self.errors: list[BaseException | None] = [None] * events
        self.states: list[Any] = []
        self._ranks: dict[int, int] = {}  # which of its reducers an event's error is of
        self.left = 0
        self._complete: asyncio.Future[None] | None = None
        self._wakeups: Wakeups | None = None
        self._stopped = False

    def failed(self, at: int, reducer_index: int, error: BaseException) -> None:
        """The event `at` failed in its reducer number `reducer_index`."""
        if self.errors[at] is None or reducer_index < self._ranks.get(at, reducer_index):
            self.errors[at] = error
            self._ranks[at] = reducer_index

    def expect(self, state: object) -> None:
        """One answer more is to come, from this state."""
        self.left += 1
        self.states.append(state)

    def answer(self) -> None:
        """One of the answers has come."""
        self.left -= 1
        if not self.left and self._complete is not None and self._wakeups is not None:
            self._wakeups.answer(self._complete, None)

    def complete(self, wakeups: Wakeups) -> asyncio.Future[None]:
        """Await it where answers are left: it is done when all have come."""
        self._complete, self._wakeups = wakeups.future(), wakeups
        return self._complete

    def stop(self) -> None:
        """The caller was cancelled before it waited."""
        self._stopped = True

    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answers any more."""
        return self._stopped or (self._complete is not None and self._complete.cancelled())


class BatchShare:
    """The events of a batch that wait for one state, in their order."""

    __slots__ = ("_answers", "_places", "batch")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._places: list[int] = []  # in the batch, and among the event's reducers, in one number
        self._answers = 0

    def add(self, at: int, reducer_index: int) -> None:
        """One event more: its place in the batch, and which of its reducers waits here."""
        self._places.append(at * RANKS + reducer_index)

    def answer(self, error: BaseException | None) -> None:
        """The next of the events, in their order, is answered."""
        if error is not None:
            at, reducer_index = divmod(self._places[self._answers], RANKS)
            self.batch.failed(at, reducer_index, error)
        self._answers += 1
        if self._answers == len(self._places):  # the batch counts states, not events
            self.batch.answer()
