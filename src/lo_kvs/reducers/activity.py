"""Reducers for how much a student does, and for how long.

The time between two events counts, up to `IDLE_S` seconds: a longer gap is a pause, of which the
first `IDLE_S` seconds count. Nothing is counted after the last event, as it is unknown how long
the student stayed.

Times are those of the server (see `event_time`). An event without a valid time adds nothing. An
event older than the newest one adds nothing either, as its time is already counted. But if it is
older by more than `LATE_S`, the newest time was wrong, or an older log is being read, so counting
starts again from there. Otherwise a clock that was wrong once would stop the count forever.
"""

from __future__ import annotations

from lo_kvs.reducers.events import (
    BY_DOCUMENT,
    BY_STUDENT,
    Event,
    Reduced,
    State,
    event_time,
)
from lo_kvs.stream_analytics.helpers import kvs_pipeline, student_event_reducer

IDLE_S = 60  # of a gap between two events, this much counts
LATE_S = 3600  # servers' clocks differ by less, restarts and older logs by more
BIN_S = 300  # bins start at multiples of this
BINS_MAX = 144  # twelve hours of writing; the state is written with every event, so it stays small

EVENT_COUNT: State = {"count": 0}
TIME_ON_TASK: State = {"seconds": 0.0, "last_time": None}
TIME_ON_TASK_BINS: State = {"bins": {}, "older_seconds": 0.0, "last_time": None}


@student_event_reducer(null_state=EVENT_COUNT)
async def event_count(event: Event, state: State) -> Reduced:  # noqa: ARG001 - any event counts
    """The number of events of a student, of whatever kind.

    Internal and External: `{"count": 12}`.
    """
    state["count"] += 1
    return state, state


@kvs_pipeline(null_state=TIME_ON_TASK, scope=BY_DOCUMENT)
async def time_on_task(event: Event, state: State) -> Reduced:
    """The seconds that a student spent on a document.

    Internal and External: `{"seconds": 81.5, "last_time": 1790000000.25}`; `last_time` is
    the time of the newest event, `None` before there is one. A student who turns to another
    document is idle in this one, so up to `IDLE_S` seconds may count for both.
    """
    now = event_time(event)
    last = state["last_time"]
    if now is None or not _moves(last, now):
        return False, False
    state["seconds"] += _counted(last, now)
    state["last_time"] = now
    return state, state


@kvs_pipeline(null_state=TIME_ON_TASK_BINS, scope=BY_STUDENT)
async def time_on_task_bins(event: Event, state: State) -> Reduced:
    """When a student worked: seconds on task in each `BIN_S` seconds of the day.

    Internal and External: `{"bins": {"1789999800": 81.5}, "older_seconds": 0.0, "last_time":
    1790000000.25}`. A bin's name is its start, in seconds since 1970; an event on a border
    belongs to the later bin, and time that crosses a border is divided there. Bins without
    time are absent. Of more than `BINS_MAX` bins the oldest go, their sum stays in
    `older_seconds`, so that all of it together is the student's time on task.
    """
    now = event_time(event)
    last = state["last_time"]
    if now is None or not _moves(last, now):
        return False, False
    state["last_time"] = now
    counted = _counted(last, now)
    if counted > 0:
        _add_to_bins(state, last, last + counted)
    return state, state


def _moves(last: float | None, now: float) -> bool:
    """Whether an event at `now` becomes the one from which the next gap is measured."""
    return last is None or now > last or now < last - LATE_S


def _counted(last: float | None, now: float) -> float:
    """The seconds that an event at `now` adds, the newest one before it being at `last`."""
    if last is None or now <= last:
        return 0.0
    return min(now - last, float(IDLE_S))


def _add_to_bins(state: State, start: float, end: float) -> None:
    bins = state["bins"]
    while start < end:
        opens = int(start // BIN_S) * BIN_S
        until = min(float(opens + BIN_S), end)
        name = str(opens)
        bins[name] = bins.get(name, 0.0) + (until - start)
        start = until
    while len(bins) > BINS_MAX:
        state["older_seconds"] += bins.pop(min(bins, key=int))
