"""The event pipeline: which reducers an event reaches, and which events are invalid."""

from __future__ import annotations

import types
from typing import Any

import pytest
from tests.stream_analytics.support import Run

from lo_kvs.kvs import InMemoryKVS, InvalidKey, Store
from lo_kvs.stream_analytics.fields import EventField, KeyField, Scope
from lo_kvs.stream_analytics.helpers import kvs_pipeline, student_event_reducer
from lo_kvs.stream_analytics.pipeline import BadEvent, BadReducers, Pipeline

BY_DOCUMENT = Scope([KeyField.STUDENT, EventField("doc_id")])
BY_STUDENT = Scope([KeyField.STUDENT])
ran: list[str] = []


class ReducerError(Exception):
    """The error that reducers raise in these tests."""


async def tally(event: Any, state: Any) -> tuple[Any, Any]:
    ran.append("tally")
    if event["client"]["event"] == "unfit":
        raise ReducerError
    return state + 1, state + 1


async def tally_documents(event: Any, state: Any) -> tuple[Any, Any]:
    ran.append("tally_documents")
    return state + 1, False


by_student = student_event_reducer(null_state=0)(tally)
by_document = kvs_pipeline(null_state=0, scope=BY_DOCUMENT)(tally_documents)

PIPELINE = Pipeline(
    [
        {"context": "docs", "function": by_student, "scope": BY_STUDENT, "default": {}},
        {"context": "docs", "function": by_document, "scope": BY_DOCUMENT},
        {"context": "other", "function": by_document},
    ]
)


@pytest.fixture(autouse=True)
def nothing_ran_yet() -> None:
    ran.clear()


def event_of(source: Any = "docs", **client: Any) -> dict[str, Any]:
    return {
        "client": {"event": "save", **client},
        "metadata": {"source": source, "auth": {"safe_user_id": "s1"}},
    }


def counts(states: dict[str, Any]) -> dict[str, Any]:
    return {key.replace(f"{__name__}.", ""): value for key, value in states.items()}


def test_event_goes_through_the_reducers_of_its_source_in_order(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await PIPELINE.process(event_of(doc_id="D")) == 2
        assert ran == ["tally", "tally_documents"]
        assert await PIPELINE.process(event_of("other", doc_id="D")) == 1
        assert counts(await store.dump()) == {
            "Internal,tally,STUDENT:s1": 1,
            "External,tally,STUDENT:s1": 1,
            "Internal,tally_documents,EventField.doc_id:D,STUDENT:s1": 2,
        }

    run(scenario)


def test_reducer_whose_event_field_is_absent_is_skipped(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await PIPELINE.process(event_of()) == 1
        assert await PIPELINE.process(event_of("other")) == 0
        assert ran == ["tally"]
        # A field that is there counts, whatever it holds.
        assert await PIPELINE.process(event_of(doc_id=None)) == 2
        assert "Internal,tally_documents,EventField.doc_id:None,STUDENT:s1" in counts(
            await store.dump()
        )

    run_stub(scenario)


@pytest.mark.parametrize(
    "event",
    [
        {"client": {"event": "save"}},
        {"client": {"event": "save"}, "metadata": {}},
        {"client": {"event": "save"}, "metadata": {"source": None, "auth": {}}},
    ],
)
def test_event_without_a_source_goes_through_no_reducer(run_stub: Run, event: Any) -> None:
    async def scenario(store: Store) -> None:
        assert await PIPELINE.process(event) == 0
        assert await PIPELINE.process_batch([event]) == [None]
        assert ran == []
        assert await store.keys() == []

    run_stub(scenario)


BAD_EVENTS: list[tuple[Any, str]] = [
    (None, "expected an object, got NoneType"),
    ([], "expected an object, got list"),
    ("event", "expected an object, got str"),
    ({}, "`client` is missing"),
    ({"client": None}, "`client` is missing"),
    ({"client": "save"}, "`client` is missing or not an object"),
    ({"client": {}}, "`client.event`"),
    ({"client": {"event": None}}, "`client.event`"),
    ({"client": {"event": 1}}, "`client.event`"),
    ({"client": {"event": "save"}, "metadata": None}, "`metadata` must be an object, got NoneType"),
    ({"client": {"event": "save"}, "metadata": "docs"}, "`metadata` must be an object, got str"),
    (event_of("unknown"), "unknown metadata.source 'unknown'; known: docs, other"),
    (event_of(""), "unknown metadata.source ''"),
    (event_of(7), "unknown metadata.source 7"),
    (event_of(["docs"]), "unknown metadata.source"),
]


@pytest.mark.parametrize(("event", "why"), BAD_EVENTS)
def test_invalid_event_is_rejected(run_stub: Run, event: Any, why: str) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(BadEvent) as raised:
            await PIPELINE.process(event)
        assert why in str(raised.value)
        good = event_of(doc_id="D")
        first, error, last = await PIPELINE.process_batch([good, event, good])
        assert first is last is None
        assert isinstance(error, BadEvent)
        assert str(error) == str(raised.value)
        assert list((await store.dump()).values()) == [2, 2, 2]

    run_stub(scenario)


def test_failing_reducer_does_not_stop_others(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        event = event_of(doc_id="D")
        event["client"]["event"] = "unfit"
        with pytest.raises(ReducerError):
            await PIPELINE.process(event)
        assert ran == ["tally", "tally_documents"]
        (written,) = await store.keys()  # by the other reducer alone
        assert "tally_documents" in written

    run_stub(scenario)


def test_document_id_invalid_in_keys_fails_only_its_event(run: Run) -> None:
    async def scenario(store: Store) -> None:
        bad, good = event_of(doc_id="\ud800"), event_of(doc_id="D")
        with pytest.raises(InvalidKey):
            await PIPELINE.process(bad)
        errors = await PIPELINE.process_batch([good, bad, good, bad, event_of(doc_id="E")])
        assert [type(error) for error in errors] == [
            type(None),
            InvalidKey,
            type(None),
            InvalidKey,
            type(None),
        ]
        documents = [key for key in await store.keys("Internal") if "doc_id" in key]
        assert len(documents) == 2

    run(scenario)


def test_store_as_an_argument(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        other = InMemoryKVS()
        await PIPELINE.process(event_of(), store=other)
        assert await PIPELINE.process_batch([event_of()], store=other) == [None]
        assert await store.keys() == []
        assert counts(await other.dump())["Internal,tally,STUDENT:s1"] == 2

    run_stub(scenario)


def test_reducers_of_a_module() -> None:
    module = types.ModuleType("some_reducers")
    module.REDUCERS = [{"context": "docs", "function": by_student}]  # type: ignore[attr-defined]
    (declared,) = Pipeline.of_module(module).reducers
    assert (declared.context, declared.default) == ("docs", None)
    assert declared.keyed.scope == BY_STUDENT
    shipped = Pipeline.of_module("lo_kvs.reducers").reducers
    assert len(shipped) >= 6


@pytest.mark.parametrize(
    ("reducers", "why"),
    [
        ([{"context": "docs"}], "needs `context` and `function`"),
        ([{"function": by_student}], "needs `context` and `function`"),
        (["docs"], "needs `context` and `function`"),
        ([{"context": "docs", "function": tally}], "is not a reducer; decorate it"),
        ([{"context": "docs", "function": None}], "is not a reducer"),
        (
            [{"context": "docs", "function": by_student, "scope": BY_DOCUMENT}],
            r"tally has the scope \['STUDENT'\], but REDUCERS declares",
        ),
    ],
)
def test_invalid_declaration_is_rejected(reducers: Any, why: str) -> None:
    with pytest.raises(BadReducers, match=why):
        Pipeline(reducers)


@pytest.mark.parametrize("reducers", [None, 7, {"context": "docs"}])
def test_module_without_a_list_of_reducers_is_rejected(reducers: Any) -> None:
    module = types.ModuleType("some_reducers")
    module.REDUCERS = reducers  # type: ignore[attr-defined]
    with pytest.raises(BadReducers, match="some_reducers has no list REDUCERS"):
        Pipeline.of_module(module)


def test_missing_module_is_named() -> None:
    with pytest.raises(BadReducers, match="no module named 'there_is_no_such_module'"):
        Pipeline.of_module("there_is_no_such_module")
