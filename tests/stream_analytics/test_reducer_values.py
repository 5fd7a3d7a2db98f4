"""Ownership of values, and their conversion to JSON: the same for cached and stored states."""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from tests.stream_analytics.support import Run, halves, process_of, send, send_at_once

from lo_kvs.kvs import NotJSON, Store
from lo_kvs.stream_analytics.helpers import kvs_pipeline


@kvs_pipeline(null_state={"events": [], "last": None})
async def collect(event: Any, state: Any) -> tuple[Any, Any]:
    """Puts the event object itself into the state, and returns the state object itself."""
    state["events"].append(event)
    state["last"] = event["client"]
    return state, state


@kvs_pipeline(null_state={"count": 0})
async def flat(event: Any, state: Any) -> tuple[Any, Any]:
    state["count"] += 1
    return state, state


def event_named(name: str) -> dict[str, Any]:
    return {"client": {"event": name, "keys": [name]}}


def collected(*names: str) -> dict[str, Any]:
    events = [event_named(name) for name in names]
    return {"events": events, "last": events[-1]["client"]}


def test_external_state_belongs_to_the_caller(run: Run) -> None:
    async def scenario(store: Store) -> None:
        process = await process_of(collect)
        first = await process(event_named("a"), {})
        assert first == collected("a")
        first["last"]["keys"].append("mine")
        first["events"].append("mine")
        first["events"][0]["client"]["event"] = "mine"
        assert await process(event_named("b"), {}) == collected("a", "b")
        assert await halves(store, collect) == [collected("a", "b")] * 2

    run(scenario)


def test_external_state_is_as_of_its_event(run: Run) -> None:
    async def scenario(store: Store) -> None:
        names = ["a", "b", "c"]
        results = await send(collect, *map(event_named, names))
        assert results == [collected(*names[:n]) for n in (1, 2, 3)]
        counts = await send(flat, *range(4))
        assert counts == [{"count": n} for n in (1, 2, 3, 4)]
        counts[1]["count"] = 99
        assert await send(flat, 4) == [{"count": 5}]
        assert counts == [{"count": n} for n in (1, 99, 3, 4)]

    run(scenario)


def test_external_states_of_folded_events_are_separate(run: Run) -> None:
    async def scenario(store: Store) -> None:
        counts = await send_at_once(flat, *range(20))
        assert counts == [{"count": n + 1} for n in range(20)]
        assert len({id(count) for count in counts}) == 20
        names = [str(n) for n in range(5)]
        results = await send_at_once(collect, *map(event_named, names))
        assert results == [collected(*names[: n + 1]) for n in range(5)]
        results[0]["last"]["keys"].append("mine")
        assert results[1:] == [collected(*names[: n + 1]) for n in range(1, 5)]

    run(scenario)


def test_changing_an_event_afterwards_does_not_change_the_state(run: Run) -> None:
    async def scenario(store: Store) -> None:
        process = await process_of(collect)
        event = event_named("a")
        shown = await process(event, {})
        event["client"]["event"] = "changed"
        event["client"]["keys"].append("changed")
        assert shown == collected("a")
        assert await process(event_named("b"), {}) == collected("a", "b")

    run(scenario)


def test_state_that_the_reducer_still_refers_to_is_not_passed_on(run: Run) -> None:
    kept: list[Any] = []

    @kvs_pipeline(null_state={"count": 0, "inside": {"count": 0}})
    async def hold(event: Any, state: Any) -> tuple[Any, Any]:
        for old in kept:
            old["count"] = old["inside"]["count"] = 1000
        kept.append(state)
        state["count"] += 1
        state["inside"]["count"] += 1
        return state, {"same": state["inside"], "count": state["count"]}

    async def scenario(store: Store) -> None:
        results = await send(hold, *range(4))
        assert results == [{"same": {"count": n}, "count": n} for n in (1, 2, 3, 4)]
        for result in results:
            result["same"]["count"] = 2000
        assert (await send(hold, 5)) == [{"same": {"count": 5}, "count": 5}]

    run(scenario)


class Grade(enum.IntEnum):
    A = 1


CONVERTED = [
    ({"at": (1, 2)}, {"at": [1, 2]}),
    ((1, (2,)), [1, [2]]),
    (
        {7: "one", None: "none", True: "true", 1.5: "float"},
        {"7": "one", "null": "none", "true": "true", "1.5": "float"},
    ),
    ({"nested": {7: {8: 9}}}, {"nested": {"7": {"8": 9}}}),
    ({"grade": Grade.A}, {"grade": 1}),
    (OrderedDict(a=1), {"a": 1}),
    ([OrderedDict(a=(1,))], [{"a": [1]}]),
    ({"big": 2**70, "small": -0.0}, {"big": 2**70, "small": -0.0}),
    ("\ud83d\ude00", "😀"),
]


def deep_types(value: Any) -> Any:
    """The types of a value's parts, which `==` does not compare."""
    if isinstance(value, dict):
        return type(value), [(type(k), deep_types(v)) for k, v in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [deep_types(part) for part in value]
    return type(value)


@pytest.mark.parametrize(("returned", "as_json"), CONVERTED)
@pytest.mark.parametrize("sending", [send, send_at_once])
def test_converted_value_is_seen_as_in_json(
    run: Run, returned: Any, as_json: Any, sending: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    @kvs_pipeline(null_state="null")
    async def convert(event: Any, state: Any) -> tuple[Any, Any]:
        seen.append(state)
        return returned, returned

    async def scenario(store: Store) -> None:
        shown = await sending(convert, 1, 2)
        from_the_store = await halves(store, convert)
        for value in [*shown, *from_the_store, seen[-1]]:
            assert value == as_json
            assert deep_types(value) == deep_types(as_json)

    run(scenario)


@pytest.mark.parametrize(("returned", "as_json"), CONVERTED)
def test_converted_external_state_alone_is_returned_as_in_json(
    run_stub: Run, returned: Any, as_json: Any
) -> None:
    @kvs_pipeline()
    async def convert(event: Any, state: Any) -> tuple[Any, Any]:
        return False, returned

    async def scenario(store: Store) -> None:
        for value in [*await send(convert, 1), (await halves(store, convert))[1]]:
            assert value == as_json
            assert deep_types(value) == deep_types(as_json)

    run_stub(scenario)


@pytest.mark.parametrize(
    "bad",
    [{1}, b"bytes", float("nan"), {"a": [float("inf")]}, object(), {1: 2, "1": 3}, {"a": 10**5000}],
)
@pytest.mark.parametrize("half", [0, 1])
def test_half_that_is_not_json_is_rejected_and_changes_nothing(
    run: Run, bad: Any, half: int
) -> None:
    @kvs_pipeline(null_state=[])
    async def grow(event: Any, state: Any) -> tuple[Any, Any]:
        state.append(event)
        if event != "bad":
            return state, state
        return (bad, "shown") if half == 0 else (state, bad)

    async def scenario(store: Store) -> None:
        process = await process_of(grow)
        for before in ([], ["a"], ["a", "b"]):
            with pytest.raises(NotJSON) as raised:
                await process("bad", {})
            assert f"{grow.__qualname__},STUDENT:s1" in str(raised.value.key)
            absent = "absent"
            assert await halves(store, grow) == [before or absent, before or absent]
            await process("abc"[len(before)], {})
        assert await halves(store, grow) == [["a", "b", "c"]] * 2

    run(scenario)
