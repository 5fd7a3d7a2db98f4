"""Folded events give the same results as events processed one after another."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stream_analytics.conftest import run_with
from tests.stream_analytics.support import (
    EXTERNAL,
    GatedStore,
    Run,
    halves,
    key_of,
    process_of,
    send,
    send_at_once,
)

from lo_kvs.kvs import InMemoryKVS, Store
from lo_kvs.stream_analytics.helpers import kvs_pipeline

#: What an event makes a reducer do with its state, once it has changed it.
DEEDS = (
    "both are one object",
    "two objects",
    "external is a part of internal",
    "internal only",
    "external only",
    "none",
    "raises",
    "no pair",
    "no JSON",
    "a tuple",
    "a new object",
)
RUNS: Counter[int] = Counter()


def perform(event: tuple[str, int], state: Any) -> Any:
    deed, number = event
    RUNS[number] += 1
    state["count"] += 1
    state["seen"].append(number)
    state["within"]["list"].append([number])
    shown = {"count": state["count"], "seen": list(state["seen"])}
    if deed == "raises":
        raise LookupError(number)
    if deed == "no JSON":
        state["seen"] = {number}
    if deed == "a tuple":
        state["within"]["list"].append((number,))
    returned = {
        "both are one object": (state, state),
        "external is a part of internal": (state, state["within"]),
        "internal only": (state, False),
        "external only": (False, shown),
        "none": (False, False),
        "no pair": state,
        "a new object": ({**state}, None),
        "a tuple": (state, (number, state["count"])),
    }
    return returned.get(deed, (state, shown))


NULL: Any = {"count": 0, "seen": [], "within": {"list": []}}


@kvs_pipeline(null_state=NULL)
async def at_once(event: Any, state: Any) -> Any:
    return perform(event, state)


@kvs_pipeline(null_state=NULL)
async def in_a_task(event: Any, state: Any) -> Any:
    await asyncio.sleep(0)
    return perform(event, state)


def forget_habits(reducer: Any) -> None:
    """Mark the reducer as one that never left a state unwritten: the others get copies."""
    reducer._kvs_keyed.reducer.declines = False


def plain_result(answer: Any) -> Any:
    return f"{type(answer).__name__}: {answer}" if isinstance(answer, Exception) else answer


async def one_by_one(reducer: Any, events: list[Any]) -> list[Any]:
    answers: list[Any] = []
    process = await process_of(reducer)
    for event in events:
        try:
            answers.append(await process(event, {}))
        except Exception as error:  # noqa: BLE001 - any of them is an answer
            answers.append(error)
    return answers


async def outcome(reducer: Any, send: Any, events: list[Any]) -> Any:
    """The answers, and both halves as they are stored, once `reducer` has reduced `events`."""
    found: Any = None
    forget_habits(reducer)

    async def scenario(store: Store) -> None:
        nonlocal found
        found = [plain_result(answer) for answer in await send(reducer, events)]
        found.append(await halves(store, reducer))

    await run_with(InMemoryKVS(), scenario)
    return found


async def folded(reducer: Any, events: list[Any]) -> list[Any]:
    return await send_at_once(reducer, *events)


@pytest.mark.parametrize("reducer", [at_once, in_a_task])
@given(deeds=st.lists(st.sampled_from(DEEDS), max_size=12))
def test_folded_events_equal_events_one_by_one(reducer: Any, deeds: list[str]) -> None:
    events = [(deed, number) for number, deed in enumerate(deeds)]

    async def compare() -> None:
        assert await outcome(reducer, folded, events) == await outcome(reducer, one_by_one, events)

    asyncio.run(compare())


def test_external_state_that_a_later_event_does_not_write(run_stub: Run) -> None:
    """One object is both states; the next event changes it and writes no External state."""
    forget_habits(at_once)

    async def scenario(store: Store) -> None:
        await send_at_once(at_once, ("both are one object", 1), ("internal only", 2))
        internal, external = await halves(store, at_once)
        assert (internal["seen"], external["seen"]) == ([1, 2], [1])

    run_stub(scenario)


@pytest.mark.parametrize("deed", ["raises", "none", "no JSON"])
def test_events_are_reduced_at_most_once_more(run_stub: Run, deed: str) -> None:
    """In every case: a fold of 40 events does not run 800 reducers."""

    async def scenario(store: Store) -> None:
        RUNS.clear()
        forget_habits(at_once)
        events = [(deed if n % 2 else "two objects", n) for n in range(40)]
        await send_at_once(at_once, *events)
        assert max(RUNS.values()) <= 2
        assert (await store[key_of(at_once)])["seen"] == list(range(0, 40, 2))

    run_stub(scenario)


def test_states_are_not_read_again_after_events_that_write_nothing() -> None:
    async def scenario(store: Store) -> None:
        assert isinstance(store, GatedStore)
        await send(at_once, ("two objects", 1), ("none", 2), ("none", 3), ("two objects", 4))
        assert len(store.reads) == 1
        assert (await store[key_of(at_once)])["seen"] == [1, 4]
        assert (await store[key_of(at_once, EXTERNAL)])["count"] == 2

    asyncio.run(run_with(GatedStore(), scenario))
