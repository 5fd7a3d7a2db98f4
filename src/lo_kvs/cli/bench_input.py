"""The input of `lo-kvs bench`: reducers, and the events of logs or of a simulated class."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from lo_kvs.cli.common import USAGE, Failure, counted, say

if TYPE_CHECKING:
    from lo_kvs.stream_analytics.pipeline import Pipeline

#: The simulated class that is used if no log is named.
STUDENTS: Final = 30
EVENTS: Final = 6000


def work_of(reducers: str, files: list[str] | None) -> tuple[Pipeline, list[Any]]:
    """The pipeline and the events that it processes."""
    from lo_kvs.cli.ingest import pipeline_of
    from lo_kvs.simulate import simulate

    pipeline = pipeline_of(reducers)
    found = _logged(files) if files else list(simulate(STUDENTS, EVENTS))
    events = [event for event in found if _takes(pipeline, event)]
    if not events:
        raise Failure(f"none of {counted(len(found), 'event')} is for {reducers}", USAGE)
    if len(events) < len(found):
        say(f"skipped {counted(len(found) - len(events), 'event')} that no reducer processes")
    return pipeline, events


def _logged(files: list[str]) -> list[Any]:
    """The events of these logs. Everything else in them is reported."""
    from lo_kvs.cli.ingest import logs_named
    from lo_kvs.cli.ingest_progress import TOLD_MAX

    logs = logs_named(files)
    events: list[Any] = []
    skipped = 0
    for item in itertools.chain.from_iterable(logs.batches()):
        if item.fault is None:
            events.append(item.event)
            continue
        skipped += 1
        if skipped <= TOLD_MAX:
            say(f"skipped: {item.place}: {item.fault}")
    if skipped > TOLD_MAX:
        say(f"skipped: {skipped - TOLD_MAX:,} more")
    for damage in logs.damaged:
        say(f"not read to its end: {damage}")
    for name in logs.empty:
        say(f"{name}: the file is empty")
    return events


def _takes(pipeline: Pipeline, event: Any) -> bool:
    from lo_kvs.stream_analytics.pipeline import BadEvent

    try:
        return bool(pipeline.plan(event))
    except BadEvent:
        return False
