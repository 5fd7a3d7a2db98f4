"""How a run of `lo-kvs ingest` ended: its summary, and its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from learning_observer.cli.session import (
    AMISS,
    DONE,
    INTERRUPTED,
    STORE,
    STRICT,
    Opened,
    counted,
    say,
)

if TYPE_CHECKING:
    from learning_observer.event_log import EventLogs
    from learning_observer.ingest import Ingest, Stopped


async def summarize(
    job: Ingest, logs: EventLogs, target: Opened, stopped: Stopped | None, as_json: bool
) -> int:
    """Print the summary; returns the exit code."""
    tally = job.tally
    if stopped is not None:
        code = STORE if stopped.lost else STRICT
    elif job.interrupted:
        code = INTERRUPTED
    else:
        code = AMISS if tally.failed or logs.damaged else DONE
    keys = None if code == STORE else await _count(target)  # a lost store is not asked again
    last = tally.last.place if tally.last is not None else None
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
            "complete": code in (DONE, AMISS) and not logs.damaged,
            "last": last,
            "damaged": logs.damaged,
        }
        print(json.dumps(found))  # noqa: T201 - the command's result
    else:
        for line in _lines(job, target, keys):
            print(line)  # noqa: T201 - the command's result
    if code in (STORE, STRICT, INTERRUPTED):
        why = {STORE: "the store was lost", STRICT: "--strict"}.get(code, "interrupted")
        after = "nothing was applied" if last is None else f"nothing after {last} was applied"
        say(f"lo-kvs: stopped ({why}): {after}")
    return code


def _lines(job: Ingest, target: Opened, keys: int | None) -> Iterator[str]:
    tally = job.tally
    yield (
        f"{counted(tally.events, 'event')} in {tally.seconds:,.1f} s ({tally.events_s:,.0f}/s), "
        f"{counted(tally.skipped, 'line')} skipped, {counted(tally.failed, 'event')} failed"
    )
    if tally.no_source:
        yield f"events that name no source, so that no reducer takes them: {tally.no_source:,}"
    if keys is not None:
        yield f"{counted(keys, 'key')} in the store {target}"


async def _count(target: Opened) -> int | None:
    """The keys in the store, or `None` where it cannot be asked: the summary comes anyway."""
    from learning_observer.kvs import KVSError

    count = 0
    try:
        async for _ in target.store.scan():
            count += 1
    except KVSError as error:
        say(f"the keys cannot be counted: {error}")
        return None
    return count
