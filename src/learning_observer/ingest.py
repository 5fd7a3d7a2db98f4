"""Ingest: events go in batches through reducers into a store, and what fails is told.

    logs = EventLogs(["class.study.log.gz"])
    ingest = Ingest(Pipeline.of_module("learning_observer.reducers"), store)
    await ingest.run(logs.batches())

Each run applies its events anew: a log that is ingested twice is counted twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from learning_observer.event_log import Item
from learning_observer.kvs import (
    KVSError,
    OutcomeUnknown,
    Refused,
    Store,
    StoreClosed,
    Unavailable,
)
from learning_observer.stream_analytics.pipeline import BadEvent, Pipeline

#: After these the next batch would fail as well, so the run ends.
STORE_LOST: Final = (Unavailable, Refused, OutcomeUnknown, StoreClosed)


class Reject(NamedTuple):
    """A line whose event is not, or not wholly, in the store.

    skipped  the line is no event; otherwise a reducer or the store failed on the event,
             and then other reducers may have taken it
    """

    item: Item
    error: BaseException
    skipped: bool

    @property
    def reason(self) -> str:
        """Why, on one line."""
        text = " ".join(str(self.error).split())
        if isinstance(self.error, BadEvent | KVSError):
            return text
        kind = type(self.error).__name__
        return f"a reducer failed: {kind}: {text}" if text else f"a reducer failed: {kind}"


class Stopped(Exception):
    """The run ended at `reject`, before its end; everything before that place was applied.

    lost  the store is the reason, not the line
    """

    def __init__(self, reject: Reject, *, lost: bool) -> None:
        super().__init__(f"{reject.item.place}: {reject.reason}")
        self.reject = reject
        self.lost = lost


@dataclass
class Tally:
    """What a run came to.

    events     events that every one of their reducers has taken; they are in the store
    skipped    lines that are no events
    failed     events on which a reducer or the store failed
    no_source  of `events`, those whose metadata names no source, so that no reducer ran
    seconds    how long it took, with the reading
    last       the last item of the last batch that was applied
    """

    events: int = 0
    skipped: int = 0
    failed: int = 0
    no_source: int = 0
    seconds: float = 0.0
    last: Item | None = field(default=None, repr=False)

    @property
    def events_s(self) -> float:
        """Events a second."""
        return self.events / self.seconds if self.seconds else 0.0


class Ingest:
    """One run of events through the reducers of `pipeline` into `store`.

    strict     end at the first line that is no event, and at the first event that fails
    on_reject  called for every such line, in the order of the lines
    on_batch   called after every batch
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        *,
        strict: bool = False,
        on_reject: Callable[[Reject], object] = lambda _: None,
        on_batch: Callable[[Tally], object] = lambda _: None,
    ) -> None:
        self.tally = Tally()
        self.interrupted = False
        self._pipeline = pipeline
        self._store = store
        self._strict = strict
        self._on_reject = on_reject
        self._on_batch = on_batch
        self._reading = False

    async def run(self, batches: Iterable[list[Item]]) -> None:
        """Apply every batch, or those until `interrupt`.

        Raises `Stopped` where `strict` or a lost store ends the run. The batch in which that
        happened is counted in `tally` like every other one. Reading blocks the event loop:
        nothing is under way then.
        """
        started = time.perf_counter()
        source = iter(batches)
        try:
            while not self.interrupted:
                batch = self._next(source)
                if batch is None:
                    break
                await self._apply(batch)
                self.tally.seconds = time.perf_counter() - started
                self._on_batch(self.tally)
        finally:
            self.tally.seconds = time.perf_counter() - started

    def interrupt(self) -> None:
        """For a signal handler: end the run after the batch that is under way.

        Raises `KeyboardInterrupt` where the run waits for input, which ends the waiting, and
        when it is called again, which ends everything.
        """
        again, self.interrupted = self.interrupted, True
        if self._reading or again:
            raise KeyboardInterrupt

    def _next(self, source: Iterator[list[Item]]) -> list[Item] | None:
        try:
            self._reading = True
            return next(source, None)
        except KeyboardInterrupt:
            self.interrupted = True
            return None
        finally:
            self._reading = False

    async def _apply(self, batch: list[Item]) -> None:
        if self._strict:
            batch = self._until_fault(batch)
        good = [item for item in batch if item.fault is None]
        found = await self._pipeline.process_batch([item.event for item in good], store=self._store)
        errors = iter(found)
        rejects: list[Reject] = []
        for item in batch:
            error = item.fault or next(errors)
            if error is not None:
                rejects.append(Reject(item, error, skipped=isinstance(error, BadEvent)))
            elif not _has_source(item.event):
                self.tally.no_source += 1
        for reject in rejects:
            self._on_reject(reject)
        skipped = sum(reject.skipped for reject in rejects)
        self.tally.skipped += skipped
        self.tally.failed += len(rejects) - skipped
        self.tally.events += len(batch) - len(rejects)
        self.tally.last = batch[-1]
        for reject in rejects:
            if isinstance(reject.error, STORE_LOST):
                raise Stopped(reject, lost=True)
        if rejects and self._strict:
            raise Stopped(rejects[0], lost=False)

    def _until_fault(self, batch: list[Item]) -> list[Item]:
        """The batch up to the first line that is no event, so that nothing after it is applied."""
        for at, item in enumerate(batch):
            fault = item.fault
            if fault is None:
                try:
                    self._pipeline.plan(item.event)
                except BadEvent as error:
                    fault = error
                except Exception:  # noqa: BLE001 - comes again from process_batch, and is told then
                    return batch[: at + 1]
            if fault is not None:
                return [*batch[:at], item._replace(fault=fault)]
        return batch


def _has_source(event: Mapping[str, object]) -> bool:
    metadata = event.get("metadata")
    return isinstance(metadata, Mapping) and metadata.get("source") is not None
