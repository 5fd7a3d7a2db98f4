"""What `lo-kvs bench` measures: the events of logs, or a simulated class, and their reducers."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from lo_kvs.cli.common import USAGE, Failure, counted, say

if TYPE_CHECKING:
    from lo_kvs.stream_analytics.pipeline import Pipeline

#: Where no log is named: the simulated class.
STUDENTS: Final = 30
EVENTS: Final = 6000


def work_of(reducers: str, files: list[str] | None) -> tuple[Pipeline, list[Any]]:
    """The pipeline, and the events that it takes."""
    from lo_kvs.cli.ingest import pipeline_of
    from lo_kvs.simulate import simulate

    pipeline = pipeline_of(reducers)
    found = _logged(files) if files else list(simulate(STUDENTS, EVENTS))
    events = [event for event in found if _takes(pipeline, event)]
    if not events:
        raise Failure(f"none of {counted(len(found), 'event')} is for {reducers}", USAGE)
    if len(events) < len(found):
        say(f"passed over, as no reducer takes them: {counted(len(found) - len(events), 'event')}")
    return pipeline, events


def _logged(files: list[str]) -> list[Any]:
    """The events of these logs; what else is in them is told."""
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
        say(f"{name}: there is nothing in it")
    return events


def _takes(pipeline: Pipeline, event: Any) -> bool:
    from lo_kvs.stream_analytics.pipeline import BadEvent

    try:
        return bool(pipeline.plan(event))
    except BadEvent:
        return False
