"""What holds for every reducer that ships."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
from typing import Any

import pytest

from lo_kvs import reducers, simulate
from lo_kvs.reducers import BY_DOCUMENT, BY_STUDENT, REDUCERS, SOURCE
from lo_kvs.stream_analytics.helpers import EventField, KeyField, Scope

NAMES = [entry["function"].__name__ for entry in REDUCERS]


@pytest.fixture(params=REDUCERS, ids=NAMES)
def entry(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


def test_table_of_reducers() -> None:
    student = Scope([KeyField.STUDENT])
    document = Scope([KeyField.STUDENT, EventField("doc_id")])
    assert student == BY_STUDENT
    assert document == BY_DOCUMENT
    assert {entry["function"].__name__: entry["scope"] for entry in REDUCERS} == {
        "event_count": student,
        "time_on_task": document,
        "time_on_task_bins": student,
        "document_list": student,
        "last_document": student,
        "document_text": document,
    }
    assert {entry["context"] for entry in REDUCERS} == {SOURCE} == {simulate.SOURCE}
    assert simulate.SOURCE == "org.mitros.writing_analytics"


def test_names_are_documented() -> None:
    for name in reducers.__all__:
        assert hasattr(reducers, name)
    for name in NAMES:
        assert f"| `{name}`" in str(reducers.__doc__)
        assert "Internal and External:" in str(getattr(reducers, name).__doc__)


def test_each_is_a_coroutine_function(entry: dict[str, Any]) -> None:
    assert inspect.iscoroutinefunction(entry["function"])
    assert list(inspect.signature(inspect.unwrap(entry["function"])).parameters) == [
        "event",
        "state",
    ]


def test_state_survives_json_and_a_second_run(entry: dict[str, Any]) -> None:
    """Each event is reduced twice, from states that went through JSON, and on a state that
    stayed in the process: all three agree, and the event is as it was.
    """
    function = inspect.unwrap(entry["function"])
    stored = json.dumps(entry["default"])
    kept = copy.deepcopy(entry["default"])
    for event in simulate.simulate(students=1, events=800, seed=11, documents=2, length=300):
        before = copy.deepcopy(event)
        first = asyncio.run(function(event, json.loads(stored)))
        second = asyncio.run(function(event, json.loads(stored)))
        in_process = asyncio.run(function(event, kept))
        assert first == second == in_process
        assert event == before
        for half in first:
            assert half is False or json.loads(json.dumps(half, allow_nan=False)) == half
        if first[0] is not False:
            stored = json.dumps(first[0])
            kept = in_process[0]
    assert json.loads(stored) == kept != entry["default"]


def test_defaults_stay_as_they_are(entry: dict[str, Any]) -> None:
    before = copy.deepcopy(entry["default"])
    events = simulate.simulate(students=1, events=100)
    asyncio.run(reducers.fold(entry["function"], events, copy.deepcopy(entry["default"])))
    assert entry["default"] == before


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"client": None, "metadata": None, "server": None},
        {"client": [], "server": []},
        {"client": {"event": 5, "doc_id": 5, "bundles": 5}, "server": {"time": "now"}},
        {"client": {"event": "google_docs_save", "bundles": [[]]}, "server": {"time": 1e300}},
    ],
)
def test_no_event_breaks_a_reducer(entry: dict[str, Any], event: dict[str, Any]) -> None:
    state = copy.deepcopy(entry["default"])
    internal, external = asyncio.run(inspect.unwrap(entry["function"])(event, state))
    json.dumps([internal, external], allow_nan=False)


def test_fold_keeps_what_false_leaves_unwritten() -> None:
    async def odd_ones(event: dict[str, int], state: list[int]) -> tuple[Any, Any]:
        if event["n"] % 2 == 0:
            return False, False
        return [*state, event["n"]], False if event["n"] == 5 else event["n"]

    events = [{"n": n} for n in range(7)]
    assert asyncio.run(reducers.fold(odd_ones, events[:6], [])) == ([1, 3, 5], 3)
    assert asyncio.run(reducers.fold(odd_ones, events[:1], [])) == ([], None)


@pytest.mark.parametrize("written", [None, 0, {}, []])
def test_fold_writes_what_only_looks_like_false(written: object) -> None:
    async def emptied(event: object, state: object) -> tuple[object, object]:
        return written, written

    assert asyncio.run(reducers.fold(emptied, [{}], "before")) == (written, written)


def test_fold_gives_no_external_state_where_none_was_written() -> None:
    async def internal_only(event: object, state: int) -> tuple[object, object]:
        return state + 1, False

    assert asyncio.run(reducers.fold(internal_only, [{}, {}], 0)) == (2, None)
