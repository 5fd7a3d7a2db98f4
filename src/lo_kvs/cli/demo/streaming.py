"""The events of the class go into the store, and the class is shown as the store holds it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from lo_kvs.cli.common import PROBLEMS, Failure, Opened, counted, say
from lo_kvs.cli.demo.rows import rows_of
from lo_kvs.cli.demo.simulated import Class
from lo_kvs.cli.demo.table import LiveTable
from lo_kvs.cli.ingest_summary import ending_of
from lo_kvs.cli.interrupts import interrupts
from lo_kvs.cli.meter import Meter, draws
from lo_kvs.ingest.job import Ingest, Reject, Stopped, Tally
from lo_kvs.kvs import KVSError, Store
from lo_kvs.stream_analytics.pipeline import Pipeline

#: The rows are read from the store at most once in this time.
REFRESH_S: Final = 0.25


class LiveClass:
    """The bar and the table while events are applied; lines where they cannot be drawn."""

    def __init__(self, simulated: Class, store: Store) -> None:
        self._simulated = simulated
        self._store = store
        self._table = LiveTable(simulated.students)
        self.meter = Meter(simulated.events, lines=True, above=self._table)
        self._changed = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.meter.__enter__()
        if draws():
            self._refreshing = asyncio.create_task(self._refresh())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.meter.__exit__(kind, error, traceback)
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing

    def applied(self, tally: Tally) -> None:
        """Show that a batch is in the store."""
        self.meter.advanced(self._simulated.read, tally)
        self._changed.set()

    async def _refresh(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            students = sorted(self._simulated.seen)[: self._table.rows_max]
            # A store that is lost ends the run, which reports it.
            with contextlib.suppress(KVSError):
                self._table.rows = await rows_of(self._store, students)
            await asyncio.sleep(REFRESH_S)


async def stream(simulated: Class, target: Opened, again: str) -> Ingest:
    """Apply the events of the class; returns the job.

    again  the command that starts from the first event again, for messages

    Raises `Failure` if the store is lost or a reducer fails.
    """
    rejects: list[Reject] = []
    live = LiveClass(simulated, target.store)
    job = Ingest(
        Pipeline.of_module("lo_kvs.reducers"),
        target.store,
        on_reject=rejects.append,
        on_batch=live.applied,
    )
    stopped: Stopped | None = None
    async with live:
        with _interrupts(job, simulated, live.meter):
            try:
                await job.run(simulated.batches())
            except Stopped as error:
                stopped = error
    ending = ending_of(job, stopped, target)
    if stopped is not None and ending is not None:
        raise Failure(
            f"Stopped: {ending.why}: {stopped.reject.reason}. {_applied(job, simulated)}. "
            f"Start again with: {again}",
            ending.code,
        )
    if rejects:
        raise Failure(f"stopped at {rejects[0].item.place}: {rejects[0].reason}", PROBLEMS)
    if ending is not None:
        say(f"lo-kvs: Stopped: {ending.why}. {_applied(job, simulated)}; the store has them.")
    return job


@contextlib.contextmanager
def _interrupts(job: Ingest, simulated: Class, meter: Meter) -> Iterator[None]:
    """The first interrupt lets the batch under way finish; the second ends the process."""

    def stop() -> None:
        meter.notice("finishing the current batch; press Ctrl-C again to stop at once")
        job.interrupt()

    def report() -> str:
        text = f"Stopped: interrupted twice. {_applied(job, simulated)}"
        if job.tally.under_way is None:
            return f"{text}."
        first, last = job.tally.under_way
        return f"{text}; of events {first.line:,} to {last.line:,}, any number may be applied."

    with interrupts.ending_by(stop, "", report):
        yield


def _applied(job: Ingest, simulated: Class) -> str:
    return f"{job.tally.events:,} of {counted(simulated.events, 'event')} are applied"
