"""Events that fail: the caller gets the error, and the state, cached or not, is unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import redis
from tests.stream_analytics.support import (
    PATIENCE_S,
    GatedStore,
    Run,
    halves,
    key_of,
    process_of,
    send,
    send_at_once,
)

from lo_kvs.kvs import (
    KVS,
    Change,
    CorruptValue,
    Guard,
    InMemoryKVS,
    KVSError,
    PersistentRedisKVS,
    Store,
    StoreClosed,
    Unavailable,
    WrongType,
)
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.engine import fold
from lo_kvs.stream_analytics.engine.batch import Batch
from lo_kvs.stream_analytics.engine.engine import Engine, Target
from lo_kvs.stream_analytics.engine.fold import Reducer, StateKeys
from lo_kvs.stream_analytics.helpers import kvs_pipeline


class ReducerError(Exception):
    """The error that reducers raise in these tests."""


@kvs_pipeline(null_state={"events": [], "count": 0})
async def collect(event: Any, state: Any) -> tuple[Any, Any]:
    """Changes the state first, then fails if the event says so."""
    state["count"] += 1
    state["events"].append(event)
    if event == "unfit":
        raise ReducerError(state["count"])
    if event == "cancel":
        raise asyncio.CancelledError
    if event == "wrong":
        return (state,)  # type: ignore[return-value]
    return state, state


@kvs_pipeline(null_state={"count": 0})
async def count(event: Any, state: Any) -> tuple[Any, Any]:
    """The same with a flat state."""
    state["count"] += 1
    if event == "unfit":
        raise ReducerError(state["count"])
    return state, state


def collected(*events: str) -> dict[str, Any]:
    return {"events": list(events), "count": len(events)}


@pytest.mark.parametrize("first", ["in the store", "in the cache", "nowhere"])
def test_reducer_that_raises_leaves_the_state_unchanged(run: Run, first: str) -> None:
    async def scenario(store: Store) -> None:
        process = await process_of(collect)
        before: list[str] = []
        if first == "in the store":
            await store.set(key_of(collect), collected("a"))
        elif first == "in the cache":
            await process("a", {})
        if first != "nowhere":
            before = ["a"]
        written = await halves(store, collect)
        for _ in range(2):
            with pytest.raises(ReducerError, match=str(len(before) + 1)):
                await process("unfit", {})
        assert await halves(store, collect) == written
        assert await process("b", {}) == collected(*before, "b")

    run(scenario)


def test_flat_state_of_a_reducer_that_raises_is_unchanged(run: Run) -> None:
    async def scenario(store: Store) -> None:
        process = await process_of(count)
        for after in (1, 2, 3):
            with pytest.raises(ReducerError, match=str(after)):
                await process("unfit", {})
            assert await process("event", {}) == {"count": after}

    run(scenario)


def test_folded_events_fail_as_if_one_by_one(run: Run) -> None:
    events = ["a", "unfit", "wrong", "b", "cancel", "unfit", "c"]

    async def scenario(store: Store) -> None:
        a, unfit, wrong, b, cancelled, unfit_again, c = await send_at_once(collect, *events)
        assert [a, b, c] == [collected("a"), collected("a", "b"), collected("a", "b", "c")]
        assert isinstance(unfit, ReducerError)
        assert unfit.args == (2,)
        assert isinstance(wrong, TypeError)
        assert isinstance(cancelled, asyncio.CancelledError)
        assert isinstance(unfit_again, ReducerError)
        assert unfit_again.args == (3,)
        assert await halves(store, collect) == [collected("a", "b", "c")] * 2
        assert await send(collect, "d") == [collected("a", "b", "c", "d")]

    run(scenario)


@pytest.mark.parametrize(
    "returned", [None, 1, {}, {"a": 1, "b": 2}, (), (1,), (1, 2, 3), False, "ab", [[1, 2]]]
)
def test_wrong_return_value_is_reported_with_the_reducer_name(run_stub: Run, returned: Any) -> None:
    @kvs_pipeline(null_state=0)
    async def shape(event: Any, state: Any) -> Any:
        return (state + 1, state + 1) if event == "good" else returned

    async def scenario(store: Store) -> None:
        process = await process_of(shape)
        for after in (1, 2):
            with pytest.raises(TypeError, match=r"shape must return \(internal, external\)"):
                await process("bad", {})
            assert await process("good", {}) == after

    run_stub(scenario)


def test_state_that_is_not_json_fails_the_event_and_is_unchanged(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        broken = b'{"count":'
        await store.commit([Change(key_of(count), Guard.ANY, {key_of(count): broken})])
        process = await process_of(count)
        for _ in range(2):
            with pytest.raises(CorruptValue, match="STUDENT:s1"):
                await process("event", {})
        assert await store.keys() == [key_of(count)]
        assert await store.read([key_of(count)]) == [broken]
        await store.set(key_of(count), {"count": 7})
        assert await process("event", {}) == {"count": 8}

    run_stub(scenario)


class BreakableStore(GatedStore):
    """A store that can be made unavailable."""

    fault: KVSError | None = None

    async def read(self, keys: Any, *, deadline: float | None = None) -> Any:
        found = await super().read(keys)
        if self.fault is not None:
            raise self.fault
        return found

    async def commit(self, changes: Any, *, deadline: float | None = None) -> Any:
        if self.fault is not None:
            self.commits.append(list(changes))
            return [self.fault] * len(changes)
        return await super().commit(changes)


def test_outage_fails_every_event_and_leaves_no_trace(run_stub: Run) -> None:
    async def scenario(_: Store) -> None:
        store = BreakableStore()
        KVS.add_item("default", store)
        assert await send(count, "a", "b") == [{"count": 1}, {"count": 2}]
        store.fault = Unavailable("no Redis")
        results = await send_at_once(count, "c", "unfit", "d")
        assert [type(result) for result in results] == [Unavailable, ReducerError, Unavailable]
        assert await send_at_once(count, "e", student="s2") == [store.fault]
        store.fault = None
        assert await send(count, "f") == [{"count": 3}]
        assert await send(count, "g", student="s2") == [{"count": 1}]

    run_stub(scenario)


def test_states_do_not_wait_out_an_outage_one_after_another(run_stub: Run) -> None:
    """A read gives up after many seconds: a second one for each state would take hours."""

    async def scenario(_: Store) -> None:
        store = BreakableStore()
        store.fault = Unavailable("no Redis")
        KVS.add_item("default", store)
        results = await asyncio.gather(
            *(send(count, "a", student=f"student {n}") for n in range(50)), return_exceptions=True
        )
        assert results == [store.fault] * 50
        assert len(store.reads) <= 2

    run_stub(scenario)


def test_key_of_another_program_fails_its_own_events_only(redis_url: str) -> None:
    """One state cannot be read; the others that are read with it can."""

    async def scenario() -> list[Any]:
        async with PersistentRedisKVS(connection=RedisSettings(url=redis_url)) as store:
            KVS.add_item("default", store)
            sending = (send(count, "a", student=student) for student in ("s1", "list", "s2"))
            return list(await asyncio.gather(*sending, return_exceptions=True))

    with redis.Redis.from_url(redis_url) as client:
        client.rpush(key_of(count, student="list"), "another program's")
    s1, other, s2 = asyncio.run(scenario())
    assert s1 == s2 == [{"count": 1}]
    assert isinstance(other, WrongType)


def test_closed_store_raises_and_no_caller_hangs(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        await send(count, "a")
        await store.aclose()
        for student in ("s1", "s2"):  # cached, and not
            (result,) = await send_at_once(count, "b", student=student)
            assert isinstance(result, StoreClosed)

    run_stub(scenario)


@pytest.mark.parametrize("when", ["read", "woken"])
def test_reducer_that_ends_the_process_leaves_no_caller_waiting(when: str) -> None:
    """All states are read together, all callers woken together; one reducer is interrupted."""

    async def reduce(event: Any, state: Any) -> tuple[Any, Any]:
        if event == "interrupted":
            raise KeyboardInterrupt
        return state + 1, state + 1

    reducer = Reducer("module.reduce", reduce, b"0")
    answers: list[Any] = []

    async def session(engine: Engine, name: str, *events: str) -> None:
        keys = StateKeys(f"Internal,{name}", f"External,{name}")
        for event in events:
            answer = await engine.process(reducer, keys, event)
        answers.append((name, answer))

    async def opened() -> Engine:
        return Engine(InMemoryKVS())

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # of the task that read the states
    engine = loop.run_until_complete(opened())
    bad = ("interrupted",) if when == "read" else ("first", "interrupted")
    events = {"a": bad, "b": ("first", "second"), "c": ("first", "second")}
    tasks = {name: loop.create_task(session(engine, name, *events[name])) for name in events}
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(tasks["c"])
    with pytest.raises(KeyboardInterrupt):  # the caller of that event gets it as well
        loop.run_until_complete(tasks["a"])
    with pytest.raises(KeyboardInterrupt):
        tasks["a"].result()
    for name in "bc":
        loop.run_until_complete(asyncio.wait_for(tasks[name], PATIENCE_S))
    assert sorted(answers) == [("b", 2), ("c", 2)]
    loop.close()


def test_batch_that_ends_the_process_leaves_its_other_states_usable() -> None:
    async def reduce(event: Any, state: Any) -> tuple[Any, Any]:
        if event == "interrupted":
            raise KeyboardInterrupt
        return state + 1, state + 1

    reducer = Reducer("module.reduce", reduce, b"0")
    keys = [StateKeys(f"Internal,{name}", f"External,{name}") for name in "abc"]

    async def slot() -> Engine:
        engine = Engine(InMemoryKVS())
        for each in keys:
            await engine.process(reducer, each, "first")
        return engine

    async def run_batch(engine: Engine) -> None:
        batch = Batch(len(keys))
        for at, each in enumerate(keys):
            event = "interrupted" if at == 0 else "second"
            engine.submit_to_batch(Target(reducer, each), event, at, 0, batch)
        await engine.run(batch)

    async def third(engine: Engine) -> Any:
        return await asyncio.wait_for(engine.process(reducer, keys[2], "third"), PATIENCE_S)

    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(slot())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(run_batch(engine))
    assert loop.run_until_complete(third(engine)) == 3
    loop.close()


def test_caller_gets_the_error_of_a_change_that_cannot_be_encoded(
    run_stub: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(store: Store) -> None:
        process = await process_of(count)
        await process("a", {})

        def no_memory(value: object) -> bytes:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(fold, "encode_plain", no_memory)
            with pytest.raises(MemoryError):
                await asyncio.wait_for(process("b", {}), PATIENCE_S)
        assert await process("c", {}) == {"count": 2}
        assert await halves(store, count) == [{"count": 2}] * 2

    run_stub(scenario)
