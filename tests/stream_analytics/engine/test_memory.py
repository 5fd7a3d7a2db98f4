"""The memory of an engine is bounded in bytes, for any ids and states."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from tests.stream_analytics.support import Run, process_of

from lo_kvs import settings
from lo_kvs.kvs import InvalidKey, Store
from lo_kvs.stream_analytics.engine.cache import STATE_BYTES, Cache, Cached
from lo_kvs.stream_analytics.engine.state_slot import StateSlot
from lo_kvs.stream_analytics.fields import EventField, KeyField, Scope
from lo_kvs.stream_analytics.helpers import kvs_pipeline, student_event_reducer
from lo_kvs.stream_analytics.pipeline import BadEvent, Pipeline
from lo_kvs.stream_analytics.query import states

DOC = EventField("doc_id")
CACHE_BYTES = 1_000_000


@student_event_reducer(null_state={"text": ""})
async def text(event: Any, state: Any) -> Any:
    return {"text": "x" * 20_000}, {"shown": "y" * 20_000}


@kvs_pipeline(null_state={"count": 0}, scope=Scope([KeyField.STUDENT, DOC]))
async def by_document(event: Any, state: Any) -> Any:
    return {"count": state["count"] + 1}, False


def event_of(student: Any, **client: Any) -> dict[str, Any]:
    metadata = {"source": "test", "auth": {"safe_user_id": student}}
    return {"client": {"event": "x", **client}, "metadata": metadata}


@pytest.mark.parametrize("batch", [False, True])
def test_a_pipeline_keeps_no_evicted_state(
    run_stub: Run, monkeypatch: pytest.MonkeyPatch, batch: bool
) -> None:
    monkeypatch.setitem(settings.settings, "reducers", {"cache_bytes": CACHE_BYTES})

    before = {id(each) for each in gc.get_objects() if type(each) is StateSlot}

    async def scenario(_: Store) -> None:
        pipeline = Pipeline([{"context": "test", "function": text}])
        events = [event_of(f"s{number}") for number in range(300)]
        if batch:
            assert await pipeline.process_batch(events) == [None] * 300
        else:
            for event in events:
                assert await pipeline.process(event) == 1
        gc.collect()
        slot = [each for each in gc.get_objects() if type(each) is StateSlot]
        slot = [each for each in slot if id(each) not in before]  # of other tests
        assert sum(len(each.data or b"") for each in slot) < CACHE_BYTES
        assert sum(isinstance(each.state, dict) for each in slot) < 50
        assert await pipeline.process(events[0]) == 1  # read again

    run_stub(scenario)


LONG = [
    pytest.param("d" * 100_000, id="100 kB"),
    pytest.param("d" * 1025, id="one byte more"),
    pytest.param("\u20ac" * 342, id="1,026 bytes"),
    pytest.param(10**5000, id="digits"),
]


@pytest.mark.parametrize("long", LONG)
def test_too_long_ids(run: Run, long: Any) -> None:
    async def scenario(store: Store) -> None:
        reducers = [{"context": "test", "function": each} for each in (by_document, text)]
        pipeline = Pipeline(reducers)
        bad = [event_of("s1", doc_id=long), event_of(long, doc_id="D")]
        for event in bad:
            with pytest.raises(BadEvent):
                await pipeline.process(event)
        good = event_of("s1", doc_id="D" * 1024)
        errors = await pipeline.process_batch([bad[0], good, bad[1], good])
        assert [type(error) for error in errors] == [BadEvent, type(None), BadEvent, type(None)]
        process = await process_of(by_document)
        with pytest.raises(InvalidKey):
            await process({}, {"doc_id": long})
        assert await process({}, {"doc_id": "D"}) is False
        with pytest.raises(InvalidKey):
            await states(by_document, [{KeyField.STUDENT: "s1", DOC: long}], store=store)
        assert all(len(key) < 2000 for key in await store.keys())

    run(scenario)


def test_a_long_value_outside_keys_is_not_cached(run_stub: Run) -> None:
    """The event lacks another field that the reducer's scope needs."""
    both = Scope([DOC, EventField("tab")])

    @kvs_pipeline(null_state=0, scope=both)
    async def by_tab(event: Any, state: Any) -> Any:
        return state + 1, False

    async def scenario(_: Store) -> None:
        pipeline = Pipeline([{"context": "test", "function": by_tab}])
        for number in range(20):
            marked = "kept?" + "d" * 100_000 + str(number)
            assert await pipeline.process(event_of("s1", doc_id=marked)) == 0
        del marked
        gc.collect()
        kept = [each for each in gc.get_objects() if type(each) is tuple and len(each) == 3]
        assert not [e for e in kept if type(e[1]) is str and e[1].startswith("kept?")]

    run_stub(scenario)


def test_wide_characters_and_keys_count() -> None:
    def taken(data: bytes, keys: int = 0) -> int:
        cache, state = Cache(10**9), Cached(keys)
        state.measure(data)
        cache.put(state)
        return cache.bytes - STATE_BYTES

    for mark, width in (("x", 1), ("\u044f", 2), ("\u20ac", 2), ("\U0001f600", 4)):
        data = ('"' + "x" * 1000 + mark + '"').encode()
        assert taken(data) == (1 + width) * len(data)
    assert taken(b"1", 500) == 502
