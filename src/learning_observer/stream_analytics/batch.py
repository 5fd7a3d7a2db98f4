"""Batches: many events that are taken in together, for a caller who waits for them all."""

from __future__ import annotations

import asyncio


class Batch:
    """Many events that are taken in together, for a caller who waits for them all.

    errors  for each event `None`, or the error of the first of its reducers that failed
    """

    __slots__ = ("_complete", "_left", "_ranks", "errors")

    def __init__(self, events: int) -> None:
        self.errors: list[BaseException | None] = [None] * events
        self._ranks: dict[int, int] = {}  # which of its reducers an event's error is of
        self._left = 0
        self._complete: asyncio.Future[None] | None = None

    def failed(self, at: int, rank: int, error: BaseException) -> None:
        """The event `at` failed in its reducer number `rank`."""
        if self.errors[at] is None or rank < self._ranks.get(at, rank):
            self.errors[at] = error
            self._ranks[at] = rank

    def expect(self) -> None:
        """One answer more is to come."""
        self._left += 1

    def answer(self) -> None:
        """One of the answers has come."""
        self._left -= 1
        complete = self._complete
        if not self._left and complete is not None and not complete.done():
            complete.set_result(None)  # done already: the caller was cancelled

    async def complete(self) -> None:
        """Wait until every answer has come."""
        if self._left:
            self._complete = asyncio.get_running_loop().create_future()
            await self._complete


class Part:
    """The events of a batch that wait for one state: their places in it, their ranks."""

    __slots__ = ("answers", "batch", "places", "ranks")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.places: list[int] = []
        self.ranks: list[int] = []
        self.answers = 0

    def answer(self, error: BaseException | None) -> None:
        """The next of the events, in their order, is answered."""
        if error is not None:
            self.batch.failed(self.places[self.answers], self.ranks[self.answers], error)
        self.answers += 1
        if self.answers == len(self.places):  # the batch counts states, not events
            self.batch.answer()
