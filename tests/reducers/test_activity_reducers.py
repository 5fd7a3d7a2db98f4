"""Counts and times, worked out by hand."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
from typing import Any

import pytest

from lo_kvs.reducers import (
    EVENT_COUNT,
    TIME_ON_TASK,
    TIME_ON_TASK_BINS,
    activity,
    event_count,
    fold,
    time_on_task,
    time_on_task_bins,
)
from lo_kvs.reducers.activity import BIN_S, BINS_MAX, IDLE_S, LATE_S
from lo_kvs.simulate import simulate

START = 1_788_771_600.0  # a multiple of BIN_S
ODD_TIMES: list[Any] = [
    None,
    "1788771600",
    True,
    0,
    -1.0,
    float("nan"),
    float("inf"),
    1.8e12,
    10**400,
    [],
    {},
]


def at(*times: Any) -> list[dict[str, Any]]:
    return [{"client": {}, "server": {"time": time}} for time in times]


def after(*seconds: float) -> list[dict[str, Any]]:
    return at(*(START + second for second in seconds))


def on_task(events: list[dict[str, Any]]) -> dict[str, Any]:
    internal, _ = asyncio.run(fold(time_on_task, events, copy.deepcopy(TIME_ON_TASK)))
    return dict(internal)


def in_bins(events: list[dict[str, Any]], state: Any = None) -> dict[str, Any]:
    begin = copy.deepcopy(TIME_ON_TASK_BINS) if state is None else state
    return dict(asyncio.run(fold(time_on_task_bins, events, begin))[0])


def test_count_is_exact() -> None:
    counts: dict[str, dict[str, int]] = {}
    for event in simulate(students=5, events=2000, seed=4):
        student = event["metadata"]["auth"]["safe_user_id"]
        state = counts.setdefault(student, dict(EVENT_COUNT))
        internal, external = asyncio.run(inspect.unwrap(event_count)(event, state))
        assert internal is external
        counts[student] = internal
    assert len(counts) == 5
    assert sum(state["count"] for state in counts.values()) == 2000


def test_count_takes_every_event() -> None:
    events: list[dict[str, Any]] = [{}, {"client": None}, *at(*ODD_TIMES)]
    assert asyncio.run(fold(event_count, events, {"count": 0}))[0] == {"count": len(events)}


@pytest.mark.parametrize(
    ("seconds", "total", "last"),
    [
        ([], 0.0, None),
        ([0], 0.0, 0),
        ([0, 10], 10.0, 10),
        ([0, 10, 10, 25.5], 25.5, 25.5),
        ([0, IDLE_S], IDLE_S, IDLE_S),
        ([0, IDLE_S + 0.5], IDLE_S, IDLE_S + 0.5),
        ([0, 20, 20 + 86_400, 86_425], 20 + IDLE_S + 5, 86_425),
        ([0, 30, 10, 40], 40.0, 40),
        ([0, 30, 30 - LATE_S, 40], 40.0, 40),
        ([0, 30, 29 - LATE_S, 34 - LATE_S], 35.0, 34 - LATE_S),
    ],
    ids=[
        "no event",
        "one event",
        "two",
        "same time",
        "gap of the cut-off",
        "gap over it",
        "a day between",
        "out of order",
        "late",
        "clock set back",
    ],
)
def test_time_on_task(seconds: list[float], total: float, last: float | None) -> None:
    expected = {"seconds": total, "last_time": None if last is None else START + last}
    assert on_task(after(*seconds)) == expected
    bins = in_bins(after(*seconds))
    assert sum(bins["bins"].values()) == total
    assert bins["last_time"] == expected["last_time"]


@pytest.mark.parametrize("odd", ODD_TIMES, ids=lambda odd: repr(odd)[:12])
def test_event_without_a_time_adds_none(odd: object) -> None:
    events = [*after(0), *at(odd), *after(10)]
    assert on_task(events) == {"seconds": 10.0, "last_time": START + 10}
    assert in_bins(events)["bins"] == {"1788771600": 10.0}


@pytest.mark.parametrize("event", [{}, {"server": None}, {"server": 5}, {"server": {}}])
def test_event_without_a_server_writes_nothing(event: dict[str, Any]) -> None:
    for reducer, null in ((time_on_task, TIME_ON_TASK), (time_on_task_bins, TIME_ON_TASK_BINS)):
        state = copy.deepcopy(null)
        assert asyncio.run(inspect.unwrap(reducer)(event, state)) == (False, False)
        assert state == null


@pytest.mark.parametrize(
    ("seconds", "bins"),
    [
        ([0], {}),
        ([0, 30], {0: 30.0}),
        ([BIN_S - 10, BIN_S], {0: 10.0}),
        ([BIN_S, BIN_S + 10], {1: 10.0}),
        ([BIN_S - 10, BIN_S + 20], {0: 10.0, 1: 20.0}),
        ([BIN_S - 10, 9 * BIN_S], {0: 10.0, 1: IDLE_S - 10}),
        ([0, 10, 5 * BIN_S + 10, 5 * BIN_S + 40], {0: 10.0 + IDLE_S, 5: 30.0}),
    ],
    ids=[
        "one event",
        "inside",
        "up to a border",
        "from a border",
        "across",
        "a pause across",
        "later",
    ],
)
def test_bins(seconds: list[float], bins: dict[int, float]) -> None:
    state = in_bins(after(*seconds))
    assert state["bins"] == {str(int(START) + bin_ * BIN_S): sum_ for bin_, sum_ in bins.items()}
    assert state["older_seconds"] == 0.0


def test_gap_longer_than_a_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity, "IDLE_S", 3 * BIN_S)
    state = in_bins(after(100, 100 + 2 * BIN_S))
    assert list(state["bins"].values()) == [BIN_S - 100.0, float(BIN_S), 100.0]


def test_bins_of_a_year_are_bounded_and_their_sum_is_kept() -> None:
    lessons = [day * 86_400 + second for day in range(360) for second in range(0, 3000, 50)]
    state = in_bins(after(*lessons))
    assert len(state["bins"]) == BINS_MAX
    assert max(map(int, state["bins"])) == int(START) + 359 * 86_400 + 2700
    assert len(json.dumps(state)) < 5000
    total = on_task(after(*lessons))["seconds"]
    assert total == 360 * 2950 + 359 * IDLE_S
    assert sum(state["bins"].values()) + state["older_seconds"] == total


def test_older_log_after_newer_ones_leaves_the_newest_bins() -> None:
    newer = in_bins(after(*range(0, BINS_MAX * BIN_S + 1, 50)))
    names = set(newer["bins"])
    state = in_bins(after(-100_000, -99_990), newer)
    assert set(state["bins"]) == names
    assert state["older_seconds"] == 10.0
