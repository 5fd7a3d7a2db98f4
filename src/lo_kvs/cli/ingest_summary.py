"""The end of a run of `lo-kvs ingest`: its summary and its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lo_kvs.cli.common import (
    DONE,
    INTERRUPTED,
    PROBLEMS,
    STORE,
    STRICT,
    Opened,
    counted,
    say,
    show,
)
from lo_kvs.ingest import log_kinds

if TYPE_CHECKING:
    from lo_kvs.ingest.event_log import EventLogs
    from lo_kvs.ingest.job import Ingest, Stopped, Tally
    from lo_kvs.stream_analytics.pipeline import Pipeline


class Ending(NamedTuple):
    """How a run stopped before the end of its input.

    code    the exit code
    why     the reason, for people
    resume  the first line that is not applied, or `None` if nothing was read
    """

    code: int
    why: str
    resume: str | None


def ending_of(job: Ingest, stopped: Stopped | None, target: Opened) -> Ending | None:
    """How the run ended, or `None` if it reached the end of its input."""
    if stopped is None:
        return (
            Ending(INTERRUPTED, "interrupted", next_place(job.tally)) if job.interrupted else None
        )
    place = stopped.reject.item.place
    if stopped.lost:
        return Ending(STORE, _why_lost(stopped.reject.error, target), place)
    return Ending(STRICT, f"--strict at {place}", place)


def stop_text(why: str, tally: Tally, resume: str | None, rejects: Path | None = None) -> str:
    """What is applied, what may be applied, and where to resume."""
    applied = f"Applied {counted(tally.events - tally.beyond, 'event')}"
    text = f"Stopped: {why}. {applied}"
    text += f" (through {tally.last.place})." if tally.last is not None else "."
    if tally.under_way is not None:  # only at the second interrupt
        first, last = tally.under_way
        return f"{text} Some events of {first.place} to {last.place} may be applied."
    if resume is None:
        return text
    text += f" Resume at {resume}."
    if not tally.beyond and not tally.unknown:
        return text
    end = tally.end.place if tally.end is not None else resume
    parts = []
    if tally.beyond:
        parts.append(f"{counted(tally.beyond, 'event')} already applied")
    if tally.unknown:
        parts.append(f"{counted(tally.unknown, 'event')} possibly applied")
    text += f" From {resume} to {end}: {', '.join(parts)}; resuming there counts these twice."
    if rejects is not None:
        text += f" {rejects} has the others: ingest that file, then resume at {next_place(tally)}."
    return text


def explain(tally: Tally, pipeline: Pipeline) -> Iterator[str]:
    """Why no reducer ran: for each such file, and for the whole run."""
    takes = ", ".join(repr(source) for source in sorted(pipeline.sources)) or "none"
    for name, first in tally.useless.items():
        kind = log_kinds.hint(first.item.raw, first.item.event)
        yield f"{name}: no line is an event for these reducers" + (
            f"; it looks like {kind}" if kind else ""
        )
    if tally.sources and (tally.useless or not tally.reduced):
        found = ", ".join(
            f"{source!r} ({counted(count, 'event')})" for source, count in tally.sources.items()
        )
        yield (
            f"sources in the log: {found}; contexts of the reducers: {takes}. "
            "Use the reducers of that source, or change their `context` in REDUCERS"
        )
    if tally.reduced or not tally.events:
        return
    if tally.no_source == tally.events:
        yield f"no reducer ran: no event has a metadata.source; contexts of the reducers: {takes}"
    else:
        yield "no reducer ran: the events lack the fields in the scopes of the reducers"


async def summarize(
    job: Ingest,
    logs: EventLogs,
    target: Opened,
    ending: Ending | None,
    *,
    as_json: bool,
    rejects: Path | None,
) -> int:
    """Print the summary and return the exit code."""
    tally = job.tally
    if ending is not None:
        code = ending.code
    else:
        unused = not tally.reduced and tally.events + tally.skipped > 0
        wrong = tally.failed or logs.damaged or logs.foreign or tally.useless or unused
        code = PROBLEMS if wrong else DONE
    keys = None if code == STORE else await _count(target)  # it would not answer
    if as_json:
        found: dict[str, Any] = {
            "events": tally.events,
            "skipped": tally.skipped,
            "failed": tally.failed,
            "no_source": tally.no_source,
            "seconds": round(tally.seconds, 3),
            "events_s": round(tally.events_s),
            "keys": keys,
            "store": {"name": target.name, "type": target.type, "where": target.where},
            "complete": ending is None and not logs.damaged and not logs.foreign,
            "last": tally.last.place if tally.last is not None else None,
            "damaged": logs.damaged + logs.foreign,
        }
        if ending is not None:
            found |= {
                "stopped": ending.why,
                "resume": ending.resume,
                "applied_after_last": tally.beyond,
                "unknown": tally.unknown,
            }
        show(json.dumps(found))
    else:
        for line in _lines(job, target, keys):
            show(line)
    if ending is not None:
        say(f"lo-kvs: {stop_text(ending.why, tally, ending.resume, rejects)}")
    return code


def next_place(tally: Tally) -> str | None:
    """The line after the end of the last batch."""
    item = tally.end
    return None if item is None else f"{item.file}:{item.line + 1}"


def _why_lost(error: BaseException, target: Opened) -> str:
    from lo_kvs.kvs import Refused, StoreClosed

    store = "Redis" if target.type.startswith("redis") else "the store"
    if isinstance(error, Refused):
        return f"{store} rejected the events"
    return "the store was closed" if isinstance(error, StoreClosed) else f"{store} is unreachable"


def _lines(job: Ingest, target: Opened, keys: int | None) -> Iterator[str]:
    tally = job.tally
    yield (
        f"{counted(tally.events, 'event')} in {tally.seconds:,.1f} s ({tally.events_s:,.0f}/s), "
        f"{counted(tally.skipped, 'line')} skipped, {counted(tally.failed, 'event')} failed"
    )
    if tally.no_source:
        yield f"{counted(tally.no_source, 'event')} without metadata.source: no reducer ran on them"
    if keys is not None:
        yield f"{counted(keys, 'key')} in the store {target}"


async def _count(target: Opened) -> int | None:
    """The number of keys, or `None` if the store does not answer: the summary comes anyway."""
    from lo_kvs.kvs import KVSError

    count = 0
    try:
        async for _ in target.store.scan():
            count += 1
    except KVSError as error:
        say(f"cannot count the keys: {error}")
        return None
    return count
