"""Reducers: what they write, under which keys, and the decorated function."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from tests.stream_analytics.support import EXTERNAL, INTERNAL, Run, halves, key_of, process_of, send

from lo_kvs.kvs import KVS, InMemoryKVS, InvalidKey, Json, NotJSON, NotStarted, Store
from lo_kvs.stream_analytics.fields import ScopeFieldError
from lo_kvs.stream_analytics.helpers import (
    EventField,
    KeyField,
    Scope,
    kvs_pipeline,
    make_key,
    student_event_reducer,
)

NULL: Json = {"null": [0]}


@kvs_pipeline(null_state=NULL)
async def replay(event: Any, state: Any) -> tuple[Any, Any]:
    """Returns the halves that the event contains."""
    internal, external = event["returns"]
    return internal, external


@student_event_reducer(null_state={"count": 0})
async def count(event: Any, state: Any) -> tuple[Any, Any]:
    """Counts events."""
    state["count"] += 1
    return state, {"count": state["count"]}


def test_state_goes_from_event_to_event(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await send(count, "a", "b", "c") == [{"count": 1}, {"count": 2}, {"count": 3}]
        assert await halves(store, count) == [{"count": 3}, {"count": 3}]
        assert await send(count, "d", student="s2") == [{"count": 1}]
        assert await halves(store, count) == [{"count": 3}, {"count": 3}]

    run(scenario)


@pytest.mark.parametrize("falsy", [None, 0, {}, [], "", 0.0, -0.0])
def test_everything_but_false_is_written(run: Run, falsy: Any) -> None:
    async def scenario(store: Store) -> None:
        await send(replay, {"returns": ("before", "before")})
        assert await send(replay, {"returns": (falsy, falsy)}) == [falsy]
        written = await halves(store, replay)
        assert written == [falsy, falsy]
        assert [type(half) for half in written] == [type(falsy)] * 2

    run(scenario)


def test_zero_is_a_state(run: Run) -> None:
    @kvs_pipeline(null_state="null state")
    async def echo(event: Any, state: Any) -> tuple[Any, Any]:
        return event, state

    async def scenario(store: Store) -> None:
        events: list[Any] = [None, 0, {}, "", [], "last"]
        seen = await send(echo, *events)
        assert seen == ["null state", *events[:-1]]
        assert [type(state) for state in seen] == [str, *map(type, events[:-1])]

    run(scenario)


@pytest.mark.parametrize(
    ("returns", "after"),
    [
        ((False, False), [NULL, "absent"]),
        ((False, "shown"), [NULL, "shown"]),
        (("kept", False), ["kept", "absent"]),
    ],
)
def test_half_that_is_false_is_not_written_at_the_first_event(
    run: Run, returns: tuple[Any, Any], after: list[Any]
) -> None:
    async def scenario(store: Store) -> None:
        (external,) = await send(replay, {"returns": returns})
        assert external is False if returns[1] is False else external == returns[1]
        assert await halves(store, replay) == after

    run(scenario)


@pytest.mark.parametrize(
    ("returns", "after"),
    [
        ((False, False), ["old", "old shown"]),
        ((False, "shown"), ["old", "shown"]),
        (("kept", False), ["kept", "old shown"]),
    ],
)
def test_half_that_is_false_is_unchanged(
    run: Run, returns: tuple[Any, Any], after: list[Any]
) -> None:
    async def scenario(store: Store) -> None:
        await send(replay, {"returns": ("old", "old shown")})
        await send(replay, {"returns": returns})
        assert await halves(store, replay) == after

    run(scenario)


def test_each_first_event_gets_its_own_null_state(run: Run) -> None:
    @kvs_pipeline(null_state={"seen": []})
    async def collect(event: Any, state: Any) -> tuple[Any, Any]:
        state["seen"].append(event)
        return (False if event == "dropped" else state), state

    async def scenario(store: Store) -> None:
        assert await send(collect, "dropped", "a") == [{"seen": ["dropped"]}, {"seen": ["a"]}]
        assert await send(collect, "b", student="s2") == [{"seen": ["b"]}]

    run(scenario)


def test_null_state_is_copied_by_the_decorator(run_stub: Run) -> None:
    null_state: dict[str, Any] = {"seen": []}

    @kvs_pipeline(null_state=null_state)
    async def show(event: Any, state: Any) -> tuple[Any, Any]:
        return state, state

    null_state["seen"].append("later")

    async def scenario(store: Store) -> None:
        assert await send(show, "a") == [{"seen": []}]

    run_stub(scenario)


def test_decorated_function_keeps_its_metadata() -> None:
    assert inspect.iscoroutinefunction(count)
    assert (count.__name__, count.__doc__) == ("count", "Counts events.")
    assert count.__module__ == __name__
    assert inspect.iscoroutinefunction(inspect.unwrap(count))
    assert list(inspect.signature(inspect.unwrap(count)).parameters) == ["event", "state"]


@pytest.mark.parametrize(
    ("metadata", "student"),
    [
        ({"auth": {"safe_user_id": "s1"}}, "s1"),
        ({"auth": {"safe_user_id": "s1", "user_id": "other"}, "source": "s"}, "s1"),
        ({"auth": {"safe_user_id": 7}}, "7"),
        ({"auth": {}}, "[guest]"),
        ({"auth": None}, "[guest]"),
        ({"source": "s"}, "[guest]"),
        ({}, "[guest]"),
        (None, "[guest]"),
    ],
)
def test_student_is_the_logged_in_user(run_stub: Run, metadata: Any, student: str) -> None:
    async def scenario(store: Store) -> None:
        process = await count(metadata)
        await process("event", {})
        assert sorted(await store.keys()) == [
            key_of(count, EXTERNAL, student),
            key_of(count, INTERNAL, student),
        ]

    run_stub(scenario)


BY_DOCUMENT = Scope([KeyField.STUDENT, EventField("doc_id")])


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({"doc_id": "D", "other": "o"}, "D"),
        ({"doc_id": "D,STUDENT:s2"}, "D%2CSTUDENT:s2"),
        ({"doc_id": 7}, "7"),
        ({"doc_id": None}, "None"),
        ({}, "None"),
        (None, "None"),
    ],
)
def test_event_field_comes_from_the_event(run_stub: Run, fields: Any, value: str) -> None:
    @kvs_pipeline(null_state=0, scope=BY_DOCUMENT)
    async def count(event: Any, state: Any) -> tuple[Any, Any]:
        return state + 1, False

    async def scenario(store: Store) -> None:
        process = await process_of(count)
        await process("event", fields)
        name = f"{__name__}.{count.__qualname__}"
        assert await store.keys() == [f"Internal,{name},EventField.doc_id:{value},STUDENT:s1"]

    run_stub(scenario)


def test_equal_event_fields_with_different_text_have_separate_states(
    run_stub: Run,
) -> None:
    @kvs_pipeline(null_state=0, scope=Scope([EventField("page")]))
    async def count(event: Any, state: Any) -> tuple[Any, Any]:
        return state + 1, False

    async def scenario(store: Store) -> None:
        process = await process_of(count)
        pages = [1, True, 1.0, "1", 0.0, -0.0, [1], [1.0]]
        for page in pages:
            await process("event", {"page": page})
        counts = {key.partition("page:")[2]: value for key, value in (await store.dump()).items()}
        assert counts == {"1": 2, "True": 1, "1.0": 1, "0.0": 1, "-0.0": 1, "[1]": 1, "[1.0]": 1}

    run_stub(scenario)


def test_event_field_invalid_in_keys_fails_only_its_event(run: Run) -> None:
    @kvs_pipeline(null_state=0, scope=Scope([EventField("page")]))
    async def count(event: Any, state: Any) -> tuple[Any, Any]:
        return state + 1, state + 1

    async def scenario(store: Store) -> None:
        process = await process_of(count)
        for after in (1, 2):
            with pytest.raises(InvalidKey):
                await process("event", {"page": "\ud800"})
            assert await process("event", {"page": "1"}) == after

    run(scenario)


@pytest.mark.parametrize("field", [KeyField.CLASS, KeyField.RESOURCE, KeyField.TEACHER])
def test_field_that_events_do_not_have_fails_at_the_event(run_stub: Run, field: KeyField) -> None:
    @student_event_reducer(scope=Scope([KeyField.STUDENT, field]))
    async def count(event: Any, state: Any) -> tuple[Any, Any]:
        return state, state

    async def scenario(store: Store) -> None:
        process = await process_of(count)  # not here
        with pytest.raises(ScopeFieldError, match=field.value):
            await process("event", {field.value: "x", field.name: "x"})
        assert await store.keys() == []

    run_stub(scenario)


def test_one_function_with_two_scopes_has_two_states(run: Run) -> None:
    async def tally(event: Any, state: Any) -> tuple[Any, Any]:
        return (state or 0) + 1, False

    by_student = student_event_reducer()(tally)
    by_document = student_event_reducer(scope=BY_DOCUMENT)(tally)
    for_all = kvs_pipeline(scope=Scope([]))(tally)

    async def scenario(store: Store) -> None:
        for document in ("D", "E", "D"):
            for reducer in (by_student, by_document, for_all):
                process = await process_of(reducer)
                await process("event", {"doc_id": document})
        doc = EventField("doc_id")
        assert await store.dump() == {
            make_key(tally, {KeyField.STUDENT: "s1"}, INTERNAL): 3,
            make_key(tally, {KeyField.STUDENT: "s1", doc: "D"}, INTERNAL): 2,
            make_key(tally, {KeyField.STUDENT: "s1", doc: "E"}, INTERNAL): 1,
            make_key(tally, {}, INTERNAL): 3,
        }

    run(scenario)


def test_overrides_appear_in_the_key_of_the_state(run_stub: Run) -> None:
    async def tally(event: Any, state: Any) -> tuple[Any, Any]:
        return (state or 0) + 1, False

    reducer = kvs_pipeline(module_override="old.module", qualname_override="counter")(tally)

    async def scenario(store: Store) -> None:
        await send(reducer, "event")
        assert await store.dump() == {"Internal,old.module.counter,STUDENT:s1": 1}

    run_stub(scenario)


def test_function_that_is_not_async_is_rejected() -> None:
    def reduces(event: Any, state: Any) -> tuple[Any, Any]:
        return state, state

    with pytest.raises(TypeError, match="must be an `async def`"):
        kvs_pipeline()(reduces)  # type: ignore[arg-type]


def test_scope_with_other_objects_than_fields_is_rejected() -> None:
    with pytest.raises(ScopeFieldError, match="a scope holds"):
        kvs_pipeline(scope=["STUDENT"])  # type: ignore[list-item]


def test_null_state_that_is_not_json_is_rejected() -> None:
    with pytest.raises(NotJSON, match=r"\$\.a"):
        kvs_pipeline(null_state={"a": {1}})  # type: ignore[dict-item]


def test_event_before_startup_says_what_to_do(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        process = await process_of(count)
        KVS.remove_item("default")
        with pytest.raises(NotStarted, match="startup_checks_and_init"):
            await process("event", {})

    run_stub(scenario)


def test_replaced_store_gets_the_next_event(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        process = await process_of(count)
        await process("event", {})
        other = InMemoryKVS()
        KVS.add_item("default", other)
        assert await process("event", {}) == {"count": 1}
        KVS.add_item("default", store)
        assert await process("event", {}) == {"count": 2}
        assert await halves(store, count) == [{"count": 2}] * 2
        assert await halves(other, count) == [{"count": 1}] * 2

    run_stub(scenario)
