"""Ingest: applies events in batches to reducers and a store, and reports what fails.

    logs = EventLogs(["class.study.log.gz"])
    ingest = Ingest(Pipeline.of_module("lo_kvs.reducers"), store)
    await ingest.run(logs.batches())

Each run applies all its events: a log that is ingested twice is counted twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from lo_kvs.ingest.event_log import Item, event_of
from lo_kvs.ingest.trial_store import TrialStore
from lo_kvs.kvs import (
    KVSError,
    OutcomeUnknown,
    Refused,
    Store,
    StoreClosed,
    Unavailable,
)
from lo_kvs.plain_text import reason_of
from lo_kvs.stream_analytics.pipeline import BadEvent, Pipeline

#: After these errors, the next batch would fail as well, so the run ends.
STORE_LOST: Final = (Unavailable, Refused, OutcomeUnknown, StoreClosed)
#: How many unknown sources are kept for the message at the end.
SOURCES_MAX: Final = 10
SOURCE_CHARS_MAX: Final = 200


class Reject(NamedTuple):
    """A line whose event is not, or only partly, in the store.

    skipped  the line is not a valid event; otherwise a reducer or the store failed on the
             event, and other reducers may have processed it
    """

    item: Item
    error: BaseException
    skipped: bool

    @property
    def reason(self) -> str:
        """The reason on one line, with terminal control characters escaped."""
        text = reason_of(self.error)
        if isinstance(self.error, BadEvent | KVSError):
            return text
        kind = type(self.error).__name__
        return f"a reducer failed: {kind}: {text}" if text else f"a reducer failed: {kind}"


class Stopped(Exception):
    """The run stopped at `reject`. `Tally.last` says what was applied.

    lost  the store is the reason, not the line
    """

    def __init__(self, reject: Reject, *, lost: bool) -> None:
        super().__init__(f"{reject.item.place}: {reject.reason}")
        self.reject = reject
        self.lost = lost


@dataclass
class Tally:
    """The result of a run so far.

    events     events that all their reducers have processed; they are in the store
    skipped    lines that are not valid events
    failed     events on which a reducer or the store failed
    no_source  of `events`, those without a source, so that no reducer ran
    reduced    whether a reducer ran for any of `events`
    seconds    the duration, including reading
    last       the last item up to which every line was applied or rejected; `beyond` and
               `unknown` count later lines
    end        the last item of the last batch
    beyond     of `events`, those after `last`: the store became unavailable within a batch, or
               a reducer failed with `strict` in a way that its trial did not show
    unknown    of `failed`, those that may or may not be in the store
    under_way  the first and last item of the batch that is being applied, or `None`
    files      for each file without any event so far, its first reject
    used       the files with at least one event
    sources    how many events were skipped for each unknown `metadata.source`, at most
               `SOURCES_MAX` of them
    """

    events: int = 0
    skipped: int = 0
    failed: int = 0
    no_source: int = 0
    reduced: bool = False
    seconds: float = 0.0
    last: Item | None = field(default=None, repr=False)
    end: Item | None = field(default=None, repr=False)
    beyond: int = 0
    unknown: int = 0
    under_way: tuple[Item, Item] | None = field(default=None, repr=False)
    files: dict[str, Reject] = field(default_factory=dict, repr=False)
    used: set[str] = field(default_factory=set, repr=False)
    sources: dict[str, int] = field(default_factory=dict)

    @property
    def events_s(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def useless(self) -> dict[str, Reject]:
        """The files whose lines were all rejected, with the first reject of each."""
        return {name: first for name, first in self.files.items() if name not in self.used}


class Ingest:
    """One run of events through the reducers of `pipeline` into `store`.

    strict     stop at the first line that is not a valid event, and at the first event on which
               a reducer fails; that line and later ones are not applied. Every batch runs
               twice: first on a trial store in memory that reads through to `store`
    on_reject  called for every rejected line, in order
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
        """Apply every batch, or those before `interrupt`.

        Raises `Stopped` if `strict` or an unavailable store ends the run. The batch in which
        that happened is included in `tally`. Reading blocks the event loop: no batch is being
        applied then.
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
        """For a signal handler: end the run after the current batch.

        Raises `KeyboardInterrupt` if the run waits for input, which ends the wait, and when
        called again, which ends the run at once.
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
        stop: Reject | None = None
        self.tally.under_way = (batch[0], batch[-1])
        if self._strict:
            batch, stop = await self._sound_part(batch)
        good = [item for item in batch if item.fault is None]
        found = await self._pipeline.process_batch([item.event for item in good], store=self._store)
        errors = iter(found)
        rejects: list[Reject] = []
        end: int | None = None  # where the run stops; everything before it is applied
        for at, item in enumerate(batch):
            error = item.fault or next(errors)
            if error is None:
                self._applied(item, beyond=end is not None)
                continue
            rejects.append(Reject(item, error, skipped=isinstance(error, BadEvent)))
            if end is None and (self._strict or isinstance(error, STORE_LOST)):
                end = at
        self.tally.end = batch[-1] if batch else self.tally.end
        applied = batch[:end]
        if applied:
            self.tally.last = applied[-1]
        self.tally.under_way = None
        if stop is not None:
            rejects.append(stop)
        for reject in rejects:
            self._count(reject)
        for reject in rejects:
            self._on_reject(reject)
        for reject in rejects:
            if isinstance(reject.error, STORE_LOST):
                raise Stopped(reject, lost=True)
        if rejects and self._strict:
            raise Stopped(rejects[0], lost=False)

    def _applied(self, item: Item, *, beyond: bool) -> None:
        tally = self.tally
        tally.events += 1
        tally.beyond += beyond
        tally.used.add(item.file)
        if not _has_source(item.event):
            tally.no_source += 1
        elif not tally.reduced:
            tally.reduced = bool(self._pipeline.plan(item.event))

    def _count(self, reject: Reject) -> None:
        tally = self.tally
        tally.skipped += reject.skipped
        tally.failed += not reject.skipped
        tally.unknown += isinstance(reject.error, OutcomeUnknown)
        if reject.skipped:
            tally.files.setdefault(reject.item.file, reject)
            source = _source_of(reject.item.event)
            room = source in tally.sources or len(tally.sources) < SOURCES_MAX
            if source is not None and room and source not in self._pipeline.sources:
                tally.sources[source] = tally.sources.get(source, 0) + 1
        else:  # it was an event
            tally.used.add(reject.item.file)

    async def _sound_part(self, batch: list[Item]) -> tuple[list[Item], Reject | None]:
        """The batch before its first invalid or failing line, and that line's reject.

        Reducers run on a trial store first: changes of the real one could not be undone.
        """
        stop: Reject | None = None
        for at, item in enumerate(batch):
            if item.fault is not None:
                batch, stop = batch[:at], Reject(item, item.fault, skipped=True)
                break
        async with TrialStore(self._store) as trial:
            # A reducer may change its event, so the trial gets copies.
            events = [event_of(item.raw) if item.raw else deepcopy(item.event) for item in batch]
            found = await self._pipeline.process_batch(events, store=trial)
        for at, error in enumerate(found):
            if error is not None:
                return batch[:at], Reject(batch[at], error, skipped=isinstance(error, BadEvent))
        return batch, stop


def _source_of(event: object) -> str | None:
    """The source of an event, or `None` if it has none or a very long one."""
    if not isinstance(event, Mapping) or not isinstance(event.get("client"), Mapping):
        return None
    metadata = event.get("metadata")
    source = metadata.get("source") if isinstance(metadata, Mapping) else None
    return source if isinstance(source, str) and len(source) <= SOURCE_CHARS_MAX else None


def _has_source(event: Mapping[str, object]) -> bool:
    metadata = event.get("metadata")
    return isinstance(metadata, Mapping) and metadata.get("source") is not None
