"""The shipped reducers behind their decorators, on the stub store."""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections import Counter
from typing import Any

import pytest

from lo_kvs import kvs
from lo_kvs.kvs import InMemoryKVS
from lo_kvs.reducers import (
    BY_STUDENT,
    REDUCERS,
    TIME_ON_TASK,
    document_text,
    event_count,
    fold,
    time_on_task,
)
from lo_kvs.simulate import SimulatedClass
from lo_kvs.stream_analytics.fields import Field
from lo_kvs.stream_analytics.helpers import (
    EventField,
    KeyField,
    KeyStateType,
    Scope,
    kvs_pipeline,
    make_key,
)

Event = dict[str, Any]
DOC_ID = EventField("doc_id")


def fields_of(event: Event, scope: Scope) -> dict[Field, str] | None:
    """What the key of the event's state says, or `None` where the event lacks a part of it."""
    fields: dict[Field, str] = {KeyField.STUDENT: event["metadata"]["auth"]["safe_user_id"]}
    if DOC_ID in scope:
        if "doc_id" not in event["client"]:
            return None
        fields[DOC_ID] = event["client"]["doc_id"]
    return fields


async def reduce_all(events: list[Event]) -> None:
    for entry in REDUCERS:
        for event in events:
            fields = fields_of(event, entry["scope"])
            if fields is not None:
                process = await entry["function"](event["metadata"])
                await process(event, {"doc_id": event["client"].get("doc_id")})


def test_states_in_the_store_are_those_of_the_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = SimulatedClass(students=3, events=300, seed=9, documents=2, length=200)
    events = list(simulated.events())

    async def stored_and_folded() -> tuple[dict[str, Any], dict[str, Any]]:
        store = InMemoryKVS()
        monkeypatch.setattr(kvs, "KVS", lambda: store)
        await reduce_all(copy.deepcopy(events))
        stored = await store.dump()
        await store.aclose()
        folded: dict[str, Any] = {}
        for entry in REDUCERS:
            of_entity: dict[tuple[Any, ...], list[Event]] = {}
            for event in events:
                if (fields := fields_of(event, entry["scope"])) is not None:
                    of_entity.setdefault(tuple(fields.items()), []).append(event)
            for entity, own in of_entity.items():
                halves = await fold(entry["function"], own, copy.deepcopy(entry["default"]))
                for state_type, half in zip(KeyStateType, halves, strict=True):
                    folded[make_key(entry["function"], dict(entity), state_type)] = half
        return stored, folded

    stored, folded = asyncio.run(stored_and_folded())
    assert stored == folded
    texts = {
        entity: stored[
            make_key(
                document_text,
                {KeyField.STUDENT: entity[0], DOC_ID: entity[1]},
                KeyStateType.EXTERNAL,
            )
        ]["text"]
        for entity in simulated.texts
    }
    assert texts == simulated.texts
    counts = Counter(event["metadata"]["auth"]["safe_user_id"] for event in events)
    for student, count in counts.items():
        key = make_key(event_count, {KeyField.STUDENT: student}, KeyStateType.EXTERNAL)
        assert stored[key] == {"count": count}


def test_keys_are_those_that_other_programs_parse() -> None:
    fields: dict[Field, object] = {KeyField.STUDENT: "S", DOC_ID: "D"}
    assert make_key(document_text, fields, KeyStateType.INTERNAL) == (
        "Internal,lo_kvs.reducers.text.document_text,EventField.doc_id:D,STUDENT:S"
    )


def test_reducer_decorated_again_with_another_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in the package's docstring."""
    by_student = kvs_pipeline(null_state=TIME_ON_TASK, scope=BY_STUDENT)
    student_time_on_task = by_student(inspect.unwrap(time_on_task))
    metadata = {"auth": {"safe_user_id": "S"}}

    async def reduced() -> dict[str, Any]:
        store = InMemoryKVS()
        monkeypatch.setattr(kvs, "KVS", lambda: store)
        for reducer in (time_on_task, student_time_on_task):
            process = await reducer(metadata)
            for second, document in ((1.0, "D"), (2.0, "E"), (4.0, "D")):
                event = {"client": {"doc_id": document}, "server": {"time": second}}
                await process(event, {"doc_id": document})
        states = await store.dump()
        await store.aclose()
        return states

    name = "External,lo_kvs.reducers.activity.time_on_task"
    states = asyncio.run(reduced())
    assert {key: value["seconds"] for key, value in states.items() if key.startswith("Ext")} == {
        f"{name},EventField.doc_id:D,STUDENT:S": 3.0,
        f"{name},EventField.doc_id:E,STUDENT:S": 0.0,
        f"{name},STUDENT:S": 3.0,
    }
