"""Batches: many events that are submitted together by a caller that waits for all of them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from lo_kvs.stream_analytics.engine.wakeups import Wakeups

#: More reducers than one event can have.
REDUCERS_MAX: Final = 1 << 16


class Batch:
    """Many events that are submitted together by a caller that waits for all of them.

    errors  for each event `None`, or the error of the first of its reducers that failed
    states  the states that its events belong to, until their processing starts
    left    how many of these states are not done yet
    """

    __slots__ = (
        "_complete",
        "_error_indexes",
        "_stopped",
        "_wakeups",
        "errors",
        "left",
        "states",
    )

    def __init__(self, events: int) -> None:
        self.errors: list[BaseException | None] = [None] * events
        self.states: list[Any] = []
        self._error_indexes: dict[
            int, int
        ] = {}  # the index of the reducer whose error an event has
        self.left = 0
        self._complete: asyncio.Future[None] | None = None
        self._wakeups: Wakeups | None = None
        self._stopped = False

    def failed(self, at: int, reducer_index: int, error: BaseException) -> None:
        """The event `at` failed in its reducer number `reducer_index`."""
        if self.errors[at] is None or reducer_index < self._error_indexes.get(at, reducer_index):
            self.errors[at] = error
            self._error_indexes[at] = reducer_index

    def expect(self, state: object) -> None:
        """Wait for one more state."""
        self.left += 1
        self.states.append(state)

    def answer(self) -> None:
        """One of the states is done."""
        self.left -= 1
        if not self.left and self._complete is not None and self._wakeups is not None:
            self._wakeups.answer(self._complete, None)

    def complete(self, wakeups: Wakeups) -> asyncio.Future[None]:
        """A future that is done when all states are. Call it only while states are left."""
        self._complete, self._wakeups = wakeups.future(), wakeups
        return self._complete

    def stop(self) -> None:
        """The caller was cancelled before it waited."""
        self._stopped = True

    def is_abandoned(self) -> bool:
        """Whether the caller no longer waits for the results."""
        return self._stopped or (self._complete is not None and self._complete.cancelled())


class BatchShare:
    """A batch's share in one state: its events there, in order."""

    __slots__ = ("_answers", "_positions", "batch")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._positions: list[int] = []  # index in the batch and reducer index, in one number
        self._answers = 0

    def add(self, at: int, reducer_index: int) -> None:
        """Add an event: its index in the batch, and the index of the reducer."""
        self._positions.append(at * REDUCERS_MAX + reducer_index)

    def answer(self, error: BaseException | None) -> None:
        """Record the result of the next event, in order."""
        if error is not None:
            at, reducer_index = divmod(self._positions[self._answers], REDUCERS_MAX)
            self.batch.failed(at, reducer_index, error)
        self._answers += 1
        if self._answers == len(self._positions):  # the batch counts states, not events
            self.batch.answer()
