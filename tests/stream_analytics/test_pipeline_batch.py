"""`process_batch` gives the same states as processing the events one by one."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stream_analytics.support import EXTERNAL, INTERNAL, Run

from lo_kvs.kvs import KVS, InMemoryKVS, Store
from lo_kvs.stream_analytics.engine.engine import STATES_PER_STEP, engine_for
from lo_kvs.stream_analytics.fields import EventField, KeyField, Scope
from lo_kvs.stream_analytics.helpers import kvs_pipeline, make_key
from lo_kvs.stream_analytics.pipeline import BadEvent, Pipeline

DOC = EventField("doc_id")
Reduced = tuple[Any, Any]


class ReducerError(Exception):
    """The error that reducers raise in these tests."""


async def count(event: Any, state: Any) -> Reduced:
    """A flat state, changed in place; one object is returned twice."""
    state["count"] += 1
    return state, state


async def collect(event: Any, state: Any) -> Reduced:
    """A nested state with parts of the event in it; fails after it changed its state."""
    state["kinds"].append(event["client"]["keys"])
    if event["client"]["event"] == "unfit":
        raise ReducerError(len(state["kinds"]))
    return state, {"last": state["kinds"][-1], "of": len(state["kinds"])}


async def convert(event: Any, state: Any) -> Reduced:
    """Values that JSON converts, and values that JSON cannot represent."""
    kind = event["client"]["event"]
    if kind == "odd":
        return {"bad": {1, 2}}, None
    return {len(state or ()): (kind,), "before": state and state.get("before")}, (kind, 1)


async def choose(event: Any, state: Any) -> Reduced:
    """Writes one half, the other, both or none."""
    kind = event["client"]["event"]
    return (
        [*state, kind] if kind in ("save", "odd") else False,
        state if kind in ("save", "open") else False,
    )


async def pause(event: Any, state: Any) -> Reduced:
    """Awaits now and then."""
    if event["client"]["event"] == "open":
        await asyncio.sleep(0)
    if event["client"]["event"] == "unfit":
        raise ReducerError(state)
    return state + 1, False


FUNCTIONS: list[tuple[Any, Any, Scope]] = [
    (count, {"count": 0}, Scope([KeyField.STUDENT])),
    (collect, {"kinds": []}, Scope([KeyField.STUDENT, DOC])),
    (convert, None, Scope([DOC])),
    (choose, [], Scope([KeyField.STUDENT])),
    (pause, 0, Scope([])),
]
DECLARED = [
    {"context": "docs", "function": kvs_pipeline(null, scope)(function)}
    for function, null, scope in FUNCTIONS
]

EVENTS = st.lists(
    st.builds(
        lambda student, kind, client: {
            "client": {"event": kind, "keys": [kind, {"by": student}], **client},
            "metadata": {"source": "docs", "auth": {"safe_user_id": student}},
        },
        st.sampled_from(["s1", "s2"]),
        st.sampled_from(["save", "save", "open", "unfit", "odd"]),
        st.sampled_from([{}, {"doc_id": "D"}, {"doc_id": "E"}]),
    )
    | st.sampled_from([{}, {"client": {"event": "save"}}]),
    max_size=20,
)


async def expected(events: list[Any]) -> tuple[dict[str, Any], list[list[type]]]:
    """The states, and each event's kinds of error, of the functions called one by one."""
    states: dict[str, Any] = {}
    errors: list[list[type]] = [[] for _ in events]
    for at, event in enumerate(events):
        if "client" not in event:
            errors[at] = [BadEvent]
            continue
        for function, null, scope in FUNCTIONS if "metadata" in event else []:
            values: dict[Any, Any] = {
                KeyField.STUDENT: event.get("metadata", {}).get("auth", {}).get("safe_user_id"),
                DOC: event["client"].get("doc_id"),
            }
            values = {field: values[field] for field in scope}
            if DOC in scope and values[DOC] is None:
                continue
            key = make_key(function, values, INTERNAL)
            state = states.get(key, copy.deepcopy(null))
            try:
                halves = await function(copy.deepcopy(event), copy.deepcopy(state))
                texts = [half if half is False else json.dumps(half) for half in halves]
            except (ReducerError, TypeError) as error:
                errors[at].append(type(error))
                continue
            states[key] = state if texts[0] is False else json.loads(texts[0])
            if texts[1] is not False:
                states[make_key(function, values, EXTERNAL)] = json.loads(texts[1])
    return states, errors


async def check(events: list[Any], *stores: Store) -> None:
    states, errors = await expected(events)
    in_batch, one_by_one = stores
    found = await Pipeline(DECLARED).process_batch(copy.deepcopy(events), store=in_batch)
    assert await in_batch.dump() == states
    for error, kinds in zip(found, errors, strict=True):
        # The set is refused as NotJSON where json.dumps says TypeError.
        assert (error is None) == (not kinds)
        assert error is None or type(error) is kinds[0] or kinds[0] is TypeError

    for declared in DECLARED:
        pipeline = Pipeline([declared])
        for event in copy.deepcopy(events):
            try:
                await pipeline.process(event, store=one_by_one)
            except (ReducerError, ValueError):
                continue
    assert await one_by_one.dump() == states


@given(events=EVENTS)
def test_batch_gives_the_same_states_as_events_one_by_one(events: list[Any]) -> None:
    asyncio.run(check(events, InMemoryKVS(), InMemoryKVS()))


def many_events(seed: int, number: int) -> list[Any]:
    choose_from = random.Random(seed)
    return [
        {
            "client": {
                "event": choose_from.choice(["save", "open", "unfit", "odd"]),
                "keys": [n],
                "doc_id": choose_from.choice("DE"),
            },
            "metadata": {
                "source": "docs",
                "auth": {"safe_user_id": choose_from.choice(["s1", "s2", "s3"])},
            },
        }
        for n in range(number)
    ]


def test_large_batch_on_each_store(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await check(many_events(seed=7, number=600), store, InMemoryKVS())

    run(scenario)


def test_errors_have_the_positions_of_their_events(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        events = many_events(seed=1, number=40)
        errors = await Pipeline(DECLARED[4:]).process_batch(events)
        kinds = [event["client"]["event"] for event in events]
        assert [error is not None for error in errors] == [kind == "unfit" for kind in kinds]
        # Each has its own error, of the state as its event found it.
        applied = [
            sum(kind != "unfit" for kind in kinds[:at])
            for at, kind in enumerate(kinds)
            if kind == "unfit"
        ]
        assert [error.args[0] for error in errors if isinstance(error, ReducerError)] == applied

    run_stub(scenario)


def test_error_of_an_event_is_the_one_of_its_first_reducer(run_stub: Run) -> None:
    """Not the reducer that happened to fail first."""

    @kvs_pipeline(null_state=0)
    async def slow(event: Any, state: Any) -> Reduced:
        await asyncio.sleep(0.005)
        raise ReducerError("slow")

    @kvs_pipeline(null_state=0)
    async def quick(event: Any, state: Any) -> Reduced:
        raise ReducerError("quick")

    async def scenario(store: Store) -> None:
        pipeline = Pipeline([{"context": "docs", "function": f} for f in (slow, quick)])
        events = many_events(seed=1, number=3)
        errors = await pipeline.process_batch(events)
        assert [error.args for error in errors if error] == [("slow",)] * 3

    run_stub(scenario)


@pytest.mark.parametrize("events", [[], [{"client": {"event": "save"}}]])
def test_batch_without_work_needs_no_store(events: list[Any]) -> None:
    assert KVS.names() == []
    assert asyncio.run(Pipeline(DECLARED).process_batch(events)) == [None] * len(events)


def test_batch_of_a_cancelled_caller_is_still_reduced() -> None:
    """Including the states that are not processed yet."""
    reducer = kvs_pipeline(null_state={"count": 0})(count)
    pipeline = Pipeline([{"context": "s", "function": reducer}])
    events = [
        {"client": {"event": "x"}, "metadata": {"source": "s", "auth": {"safe_user_id": f"{at}"}}}
        for at in range(3 * STATES_PER_STEP)
    ]

    async def main() -> None:
        store = InMemoryKVS()
        for _ in range(2):  # from the store first, then from the cache
            caller = asyncio.create_task(pipeline.process_batch(events, store=store))
            await asyncio.sleep(0)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            # Each event of a state waits for those before it.
            await pipeline.process_batch(events[-1:], store=store)
            assert engine_for(store).backpressure.events == 0
        counts = await store.multiget(await store.keys("Internal"))
        assert sorted(count["count"] for count in counts) == [2] * (len(events) - 1) + [4]

    asyncio.run(asyncio.wait_for(main(), 20))
