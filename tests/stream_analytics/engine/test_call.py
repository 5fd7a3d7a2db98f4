"""Running a reducer without a task: its result, its errors, and the owned halves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lo_kvs.kvs import codec
from lo_kvs.stream_analytics.engine.call import run, run_purely
from lo_kvs.stream_analytics.engine.fold import Fold, Reducer, StateKeys

KEPT: list[Any] = []
EVENT: dict[str, Any] = {"client": {"event": "x"}, "list": [1]}


class Box(Fold):
    """Passes on the state that was put into it, once, and records the arguments of `apply`."""

    def __init__(self, states: list[Any]) -> None:
        super().__init__(Reducer("", returns, b"null"), StateKeys("", ""))
        self.states = states

    def next_state(self) -> Any:
        return self.states.pop()

    def apply(
        self, result: Any, wanted: bool, internal_owned: bool = False, external_owned: bool = False
    ) -> Any:
        return result, internal_owned, external_owned, wanted


TWINS = pytest.mark.parametrize("running", [run, run_purely])


async def returns(event: Any, state: Any) -> Any:
    return state, {"shown": event}


async def raises(event: Any, state: Any) -> Any:
    raise LookupError(event)


async def sleeps(event: Any, state: Any) -> Any:
    await asyncio.sleep(0)


@TWINS
def test_returned_value(running: Any) -> None:
    state = {"count": 1}
    box = [state]
    assert running(returns, 2, Box(box), True)[::3] == ((state, {"shown": 2}), True)
    assert box == []


@TWINS
def test_raised_error(running: Any) -> None:
    with pytest.raises(LookupError, match="5"):
        running(raises, 5, Box([{}]), False)


@TWINS
def test_reducer_that_suspends_without_await(running: Any) -> None:
    with pytest.raises(RuntimeError, match="but suspended"):
        running(sleeps, 5, Box([{}]), False)


def fresh() -> dict[str, Any]:
    return {"count": 1, "list": [1, {"deep": "\u201ctext\u201d"}], "none": None, "half": 0.5}


async def same(event: Any, state: Any) -> Any:
    state["count"] += 1
    return state, state


async def new(event: Any, state: Any) -> Any:
    return {"of": [1]}, {"shown": [2]}


async def keeps(event: Any, state: Any) -> Any:
    KEPT.append(state)
    return state, {}


async def keeps_a_part(event: Any, state: Any) -> Any:
    KEPT.append(state["list"][1])
    return state, {}


async def keeps_what_it_shows(event: Any, state: Any) -> Any:
    shown = {"of": state["count"]}
    KEPT.append(shown)
    return state, shown


async def shares_a_part(event: Any, state: Any) -> Any:
    return state, {"list": state["list"]}


async def takes_a_part_of_the_event(event: Any, state: Any) -> Any:
    state["list"] = event["list"]
    return state, {"of": event["client"]}


async def is_part_of_the_event(event: Any, state: Any) -> Any:
    event["state"] = state
    return state, {}


async def twice_in_itself(event: Any, state: Any) -> Any:
    state["again"] = state["list"]
    return state, {}


async def keeps_the_pair(event: Any, state: Any) -> Any:
    pair = ({"a": 1}, {"b": 1})
    KEPT.append(pair)
    return pair


async def keeps_its_frame(event: Any, state: Any) -> Any:
    try:
        KEPT[99]
    except IndexError as error:
        KEPT.append(error)  # its traceback holds the frame, and so the state
    return state, {}


async def is_no_json(event: Any, state: Any) -> Any:
    return {"nan": float("nan")}, {"tuple": ()}


async def has_half_a_character(event: Any, state: Any) -> Any:
    return {"text": "\ud83d"}, {"\udc00": 1}


async def writes_nothing(event: Any, state: Any) -> Any:
    return False, False


async def numbers(event: Any, state: Any) -> Any:
    return 1, "text"


@pytest.mark.parametrize(
    ("reducer", "internal_owned", "external_owned"),
    [
        (same, True, False),
        (new, True, True),
        (keeps, False, True),
        (keeps_a_part, False, True),
        (keeps_what_it_shows, True, False),
        (shares_a_part, False, False),
        (takes_a_part_of_the_event, False, False),
        (is_part_of_the_event, False, True),
        (twice_in_itself, False, True),
        (keeps_the_pair, False, False),
        (keeps_its_frame, False, True),
        (is_no_json, False, False),
        (has_half_a_character, False, False),
        (writes_nothing, False, False),
        (numbers, False, False),
    ],
)
def test_owned_halves_of_the_result(
    reducer: Any, internal_owned: bool, external_owned: bool
) -> None:
    KEPT.clear()
    event = {**EVENT, "list": [1]}
    result, *owned, _ = run(reducer, event, Box([fresh()]), True)
    # The pure twin does not count references, and never says so.
    assert owned == [internal_owned and codec.COMPILED, external_owned and codec.COMPILED]
    assert len(result) == 2


def test_a_state_that_the_caller_refers_to_is_not_owned() -> None:
    slot = fresh()
    assert run(same, EVENT, Box([slot]), True)[1] is False
    part = [fresh()]
    assert run(same, EVENT, Box([{"count": 1, "part": part}]), True)[1] is False
    del slot, part
    assert run(same, EVENT, Box([{"count": 1, "part": [fresh()]}]), True)[1] is codec.COMPILED
