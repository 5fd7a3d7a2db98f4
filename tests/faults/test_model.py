"""Random operations on every store, and a plain dictionary that says what must come of each.

Two store objects work on the same data by turns, and reducers between them, whose states stand
among the other keys: whatever is set, removed or cleared behind a reducer's back must count.
"""

from __future__ import annotations

import asyncio
import copy
import json
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from tests.faults.stores import STORES, opening
from tests.faults.tally import Tally
from tests.faults.workers import tell

from lo_kvs.kvs import (
    KVS,
    Change,
    Conflict,
    Guard,
    InMemoryKVS,
    InvalidKey,
    NotJSON,
    Store,
    codec,
)
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.stream_analytics.pipeline import Pipeline

T = TypeVar("T")
Model = dict[str, Any]

EXAMPLES = 25
STUDENTS = ("s1", "s2")


@student_event_reducer(null_state={"count": 0}, module_override="m", qualname_override="tally")
async def tally_of_events(event: Any, state: Any) -> tuple[Any, Any]:
    """Counts, or does what the event says; takes up whatever state it is given."""
    counted = count_of(state)
    match event["client"]["event"]:
        case "look":
            return False, counted
        case "nothing":
            return False, False
        case "raise":
            found = copy.deepcopy(state)
            if isinstance(state, dict | list):
                state.clear()  # what a reducer spoiled before it failed is nobody's state
            raise ArithmeticError(found)
        case "no json":
            return {"count": float("nan")}, counted
        case _:
            return {"count": counted + 1}, [counted + 1]


def count_of(state: Any) -> int:
    return state["count"] if isinstance(state, dict) and type(state.get("count")) is int else 0


def event_of(student: str, kind: str) -> dict[str, Any]:
    metadata = {"source": "s", "auth": {"safe_user_id": student}}
    return {"client": {"event": kind}, "metadata": metadata}


PIPELINE = Pipeline([{"context": "s", "function": tally_of_events}])
KEYED: Any = tally_of_events.__dict__["_kvs_keyed"]
STATES = {who: KEYED.keys({"auth": {"safe_user_id": who}}, {}) for who in STUDENTS}

STATE_KEYS = [STATES["s1"].internal, STATES["s1"].external, STATES["s2"].internal]
KEYS = st.sampled_from(["a", "b", "A", "a/b", "_a", "{a}b", "é", "", "n" * 300, *STATE_KEYS])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
VALUES = st.one_of(
    st.builds(lambda count: {"count": count}, st.integers(0, 9)),
    st.recursive(
        LEAVES | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=4,
    ),
)
KINDS = st.sampled_from(["count", "count", "count", "look", "nothing", "raise", "no json"])
EVENTS = st.tuples(st.sampled_from(STUDENTS), KINDS)
#: Which of the two store objects is used.
SIDE = st.integers(0, 1)


def same(value: object, other: object) -> bool:
    """Equal, with the same types and the same order everywhere."""
    return repr(value) == repr(other)


class StoreMachine(RuleBasedStateMachine):
    """Operations on a store, each made on a dictionary as well."""

    #: Opens the example's store; called again, another object on the same data.
    open_store: Callable[[], Store]
    #: Makes the place of the stores empty.
    wipe: Callable[[], None]
    steps = 0

    @initialize()
    def begin(self) -> None:
        self.wipe()
        self.model: Model = {}
        self.dumped: Model | None = None
        self.folder = tempfile.mkdtemp(prefix="lokvs-")
        self.runner = asyncio.Runner()
        self.sides = [self.do(self.opened()), self.do(self.opened())]
        KVS.add_item("default", self.sides[0])

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        for side in self.sides:
            self.do(side.aclose())
        KVS.remove_item("default")
        self.runner.close()
        shutil.rmtree(self.folder)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        type(self).steps += 1
        return self.runner.run(work)

    async def opened(self) -> Store:
        return type(self).open_store()

    # -- values ----------------------------------------------------------------------

    @rule(side=SIDE, key=KEYS, value=VALUES)
    def set(self, side: int, key: str, value: Any) -> None:
        self.do(self.sides[side].set(key, value))
        self.model[key] = value

    @rule(side=SIDE, key=KEYS)
    def get(self, side: int, key: str) -> None:
        default = object()
        found = self.do(self.sides[side].get(key, default))
        assert same(found, self.model.get(key, default))
        assert self.do(self.sides[side].exists(key)) is (key in self.model)

    @rule(side=SIDE, key=KEYS)
    def remove(self, side: int, key: str) -> None:
        assert self.do(self.sides[side].remove(key)) is (key in self.model)
        self.model.pop(key, None)

    @rule(side=SIDE, items=st.dictionaries(KEYS, VALUES, max_size=4))
    def multiset(self, side: int, items: Model) -> None:
        self.do(self.sides[side].multiset(items))
        self.model.update(items)

    @rule(side=SIDE, keys=st.lists(KEYS, max_size=5))
    def multiget(self, side: int, keys: list[str]) -> None:
        found = self.do(self.sides[side].multiget(keys, "absent"))
        assert same(found, [self.model.get(key, "absent") for key in keys])

    @rule(side=SIDE, key=KEYS)
    def update(self, side: int, key: str) -> None:
        expected = [self.model.get(key)]
        assert same(self.do(self.sides[side].update(key, lambda old: [old])), expected)
        self.model[key] = expected

    @rule(side=SIDE, key=KEYS, value=VALUES)
    def refuse(self, side: int, key: str, value: Any) -> None:
        with pytest.raises(NotJSON):
            self.do(self.sides[side].multiset({"a": value, key: {"nan": float("nan")}}))
        with pytest.raises(InvalidKey):
            self.do(self.sides[side].multiset({key: value, "__lokvs:" + key: value}))

    # -- changes -----------------------------------------------------------------------

    @rule(
        side=SIDE,
        guard=KEYS,
        wrong=st.sampled_from([False, False, b"1", None]),
        puts=st.dictionaries(KEYS, st.just(None) | VALUES.map(codec.encode), max_size=3),
    )
    def commit(self, side: int, guard: str, wrong: Any, puts: dict[str, bytes | None]) -> None:
        stands = codec.encode(self.model[guard]) if guard in self.model else None
        expected = stands if wrong is False else wrong
        (outcome,) = self.do(self.sides[side].commit([Change(guard, expected, puts)]))
        if expected == stands:
            assert outcome is None
            self.put(puts)
        else:
            assert outcome == Conflict(stands)

    @rule(side=SIDE, keys=st.lists(KEYS, max_size=4, unique=True), value=VALUES)
    def commit_many(self, side: int, keys: list[str], value: Any) -> None:
        """Independent changes in one call: every other one has no guard, or a wrong one."""
        guards = [Guard.ANY if at % 2 else b"no such bytes" for at in range(len(keys))]
        data = codec.encode(value)
        changes = [Change(key, g, {key: data}) for key, g in zip(keys, guards, strict=True)]
        outcomes = self.do(self.sides[side].commit(changes))
        for at, (key, outcome) in enumerate(zip(keys, outcomes, strict=True)):
            if at % 2:
                assert outcome is None
                self.model[key] = value
            else:
                stands = codec.encode(self.model[key]) if key in self.model else None
                assert outcome == Conflict(stands)

    def put(self, puts: dict[str, bytes | None]) -> None:
        for key, data in puts.items():
            if data is None:
                self.model.pop(key, None)
            else:
                self.model[key] = json.loads(data)

    # -- all keys ------------------------------------------------------------------------

    @rule(side=SIDE, prefix=st.sampled_from(["", "a", "_", "Internal,", "{", "no such"]))
    def scan(self, side: int, prefix: str) -> None:
        found = self.do(self.sides[side].keys(prefix))
        assert sorted(found) == sorted(key for key in self.model if key.startswith(prefix))

    @rule(side=SIDE)
    def dump(self, side: int) -> None:
        assert self.do(self.sides[side].dump(self.file())) == self.model
        self.dumped = dict(self.model)

    @rule(side=SIDE)
    def load(self, side: int) -> None:
        if self.dumped is not None:
            assert self.do(self.sides[side].load(self.file())) == len(self.dumped)
            self.model.update(self.dumped)

    @rule(side=SIDE)
    def clear(self, side: int) -> None:
        self.do(self.sides[side].clear(everything=True))
        self.model.clear()

    @rule(side=SIDE)
    def reopen(self, side: int) -> None:
        if isinstance(self.sides[side], InMemoryKVS):
            return  # it lives no longer than its object
        self.do(self.sides[side].aclose())
        self.sides[side] = self.do(self.opened())
        KVS.add_item("default", self.sides[0])

    def file(self) -> Path:
        return Path(self.folder) / "dump.json"

    # -- reducers ------------------------------------------------------------------------

    @rule(event=EVENTS)
    def process(self, event: tuple[str, str]) -> None:
        shown = self.do(self.one_event(*event))
        expected = self.reduce(*event)
        assert agrees(shown, expected), (shown, expected)

    @rule(events=st.lists(EVENTS, min_size=1, max_size=6))
    def process_batch(self, events: list[tuple[str, str]]) -> None:
        taken = [event_of(*event) for event in events]
        errors = self.do(PIPELINE.process_batch(taken))
        for event, error in zip(events, errors, strict=True):
            expected = self.reduce(*event)
            failed = isinstance(expected, Exception)
            assert agrees(error, expected) if failed else error is None, (error, expected)

    @rule(side=SIDE, event=EVENTS, value=VALUES | st.just(...))
    def process_behind_its_back(self, side: int, event: tuple[str, str], value: Any) -> None:
        """The state of an event is held; it is set or removed (...); then the event comes."""
        student, _ = event
        self.process((student, "look"))
        key = STATES[student].internal
        if value is ...:
            self.remove(side, key)
        else:
            self.set(side, key, value)
        self.process(event)

    async def one_event(self, student: str, kind: str) -> Any:
        event = event_of(student, kind)
        try:
            return await (await tally_of_events(event["metadata"]))(event, {})
        except (ArithmeticError, NotJSON) as error:
            return error

    def reduce(self, student: str, kind: str) -> Any:
        """What the event comes to: the External state that it shows, or its error."""
        internal, external = STATES[student]
        state = self.model.get(internal, {"count": 0})
        counted = count_of(state)
        if kind == "raise":
            return ArithmeticError(state)
        if kind == "no json":
            return NotJSON("$.count", "NaN is not JSON")
        if kind == "count":
            self.model[internal] = {"count": counted + 1}
            self.model[external] = [counted + 1]
            return [counted + 1]
        self.model.setdefault(internal, {"count": 0})
        if kind == "nothing":
            return False
        self.model[external] = counted
        return counted

    # -- always ----------------------------------------------------------------------------

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        if not hasattr(self, "runner"):
            return
        for side in self.sides:
            found = self.do(side.dump())
            assert sorted(found) == sorted(self.model)
            assert all(same(found[key], value) for key, value in self.model.items())


def agrees(got: object, expected: object) -> bool:
    """Whether an event came to what it should: an error of that class that says the same."""
    if isinstance(expected, NotJSON):
        return isinstance(got, NotJSON) and (got.path, got.reason) == (
            expected.path,
            expected.reason,
        )
    return same(got, expected)


@pytest.mark.parametrize("name", STORES)
def test_store_does_what_the_model_says(
    name: str, redis_url: str, tmp_path: Path, seed: int, tally: Tally
) -> None:
    open_store, wipe = opening(name, tmp_path / "store", redis_url)

    class Machine(StoreMachine):
        pass

    Machine.open_store = staticmethod(open_store)
    Machine.wipe = staticmethod(wipe)
    settings = hypothesis.settings(
        max_examples=EXAMPLES,
        phases=[hypothesis.Phase.generate],  # shrinking what failed takes minutes
        stateful_step_count=30,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_machine(hypothesis.seed(seed)(Machine), settings=settings)
    tell(f"{name}: {Machine.steps} calls")
    tally("T17", Machine.steps, f"{name}: {EXAMPLES} runs agree with the model")
