"""Contract tests for values: results are JSON, and never shared objects."""

from __future__ import annotations

import copy
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lo_kvs.kvs import Change, Guard, NotJSON, Store
from lo_kvs.kvs.codec import Json
from lo_kvs.stream_analytics.engine.engine import Engine
from lo_kvs.stream_analytics.helpers import kvs_pipeline
from lo_kvs.stream_analytics.limits import Limits
from lo_kvs.stream_analytics.pipeline import Pipeline
from lo_kvs.testing.contract.base import StoreUnderTest, on_store, same
from lo_kvs.testing.contract.cases import CONVERTED, REFUSED, VALUES


def put(value: Any) -> Callable[[Json], Json]:
    """A change for `update`: to `value`, whatever was there."""
    return lambda _: value


class ValueContract(StoreUnderTest):
    """What a store does with the values that it is given."""

    @on_store
    async def test_absent_key_in_every_method(self, store: Store) -> None:
        assert await store["absent"] is None
        assert await store.get("absent") is None
        assert await store.get("absent", {"a": 1}) == {"a": 1}
        assert await store.exists("absent") is False
        assert await store.multiget(["absent", "gone"]) == [None, None]
        assert await store.multiget(keys=["absent"], default=0) == [0]
        assert await store.multiget([]) == []
        assert await store.read(["absent"]) == [None]
        assert await store.read([]) == []
        assert await store.remove("absent") is False
        assert await store.keys() == []
        assert await store.keys("abs") == []
        assert await store.dump() == {}
        assert await store.commit([Change("absent", None, {"absent": None})]) == [None]
        assert await store.commit([Change("absent", Guard.ANY, {"absent": None})]) == [None]
        assert await store.exists("absent") is False
        assert await store.update("absent", lambda value: [value]) == [None]

    @on_store
    async def test_values_come_back_as_they_were(self, store: Store) -> None:
        for at, value in enumerate(VALUES):
            await store.set(f"set {at}", value)
            assert same(await store[f"set {at}"], value)
            assert same(await store.update(f"update {at}", put(value)), value)
            assert same(await store.get(f"update {at}"), value)
        await store.multiset({f"multi {at}": value for at, value in enumerate(VALUES)})
        found = await store.multiget([f"multi {at}" for at in range(len(VALUES))])
        assert same(found, VALUES)
        dumped = await store.dump()
        assert same([dumped[f"set {at}"] for at in range(len(VALUES))], VALUES)

    @on_store
    async def test_values_are_stored_as_json_text(self, store: Store) -> None:
        await store.set("key", {"text": "é", "list": [1, 2.5, None, True]})
        data = self.raw_get("key")
        assert data is not None
        assert json.loads(data) == {"text": "é", "list": [1, 2.5, None, True]}
        assert await store.read(["key"]) == [data]

    @on_store
    async def test_stored_none_is_a_value(self, store: Store) -> None:
        await store.set("none", None)
        assert self.raw_get("none") == b"null"
        assert await store["none"] is None
        assert await store.get("none", "default") is None
        assert await store.multiget(["none", "absent"], default="default") == [None, "default"]
        assert await store.exists("none") is True
        assert await store.keys() == ["none"]
        assert await store.dump() == {"none": None}
        assert await store.remove("none") is True
        assert await store.exists("none") is False

    @on_store
    async def test_callers_object_mutated_after_a_write(self, store: Store) -> None:
        value: Any = {"list": [1], "map": {"a": 1}}
        before = copy.deepcopy(value)
        await store.set("set", value)
        await store.multiset({"multi": value})
        returned: Any = await store.update("update", lambda _: value)
        value["list"] = [2]
        value["map"]["b"] = 2
        assert returned == before
        returned["list"].append(3)
        for key in ("set", "multi", "update"):
            assert await store[key] == before

    @on_store
    async def test_object_mutated_after_a_read(self, store: Store) -> None:
        value: Any = {"list": [1], "map": {"a": 1}}
        await store.set("key", value)

        def spoil(found: Any) -> None:
            found["list"].append(2)
            found["map"].clear()

        spoil(await store["key"])
        spoil(await store.get("key"))
        first, second = await store.multiget(["key", "key"])
        spoil(first)
        assert second == value
        spoil((await store.dump())["key"])
        assert await store["key"] == value

        def fail(found: Any) -> Any:
            spoil(found)
            raise LookupError("the change failed")

        with pytest.raises(LookupError, match="the change failed"):
            await store.update("key", fail)
        assert await store["key"] == value

    @on_store
    async def test_what_json_dumps_converts_comes_back_as_json_has_it(self, store: Store) -> None:
        for at, value in enumerate(CONVERTED):
            expected = json.loads(json.dumps(value))
            await store.set(f"set {at}", value)
            await store.multiset({f"multi {at}": value})
            assert same(await store.update(f"update {at}", put(value)), expected)
            keys = [f"{how} {at}" for how in ("set", "multi", "update")]
            assert same(await store.multiget(keys), [expected] * 3)

    @pytest.mark.parametrize("cached", [True, False])
    @on_store
    async def test_reducer_sees_its_state_as_json_has_it(self, store: Store, cached: bool) -> None:
        for at, value in enumerate([*CONVERTED, *VALUES]):
            seen: list[Any] = []

            async def reducer(
                _event: Any, state: Any, seen: list[Any] = seen, value: Any = value
            ) -> tuple[Any, Any]:
                seen.append(state)
                return {"state": value}, {"state": value}

            made = kvs_pipeline(null_state="null", qualname_override=f"reducer{at}")(reducer)
            pipeline = Pipeline([{"context": "source", "function": made}])
            event = {"client": {"event": "keystroke"}, "metadata": {"source": "source"}}
            ((prepared, keys),) = pipeline.plan(event)
            engine = Engine(store, Limits() if cached else Limits(cache_bytes=0))
            expected = json.loads(json.dumps({"state": value}))
            external = [await engine.process(prepared, keys, event) for _ in range(2)]
            assert same(seen, ["null", expected])
            assert same(external, [expected] * 2)
            assert same(await store.multiget(keys), [expected] * 2)

    @on_store
    async def test_what_is_no_json_is_refused_before_anything_is_written(
        self, store: Store
    ) -> None:
        for value in REFUSED:
            with pytest.raises(NotJSON) as refused:
                await store.set("key", value)
            assert refused.value.key == "key"
            assert str(refused.value).startswith("$")
            with pytest.raises(NotJSON):
                await store.multiset({"first": 1, "key": value, "last": 2})
            with pytest.raises(NotJSON):
                await store.update("key", put(value))
        assert await store.keys() == []
        assert [self.raw_get(key) for key in ("key", "first", "last")] == [None] * 3

    @on_store
    async def test_refused_value_leaves_the_old_one(self, store: Store) -> None:
        await store.set("key", {"kept": True})
        data = self.raw_get("key")
        for value in REFUSED:
            writes: list[Callable[[Any], Awaitable[object]]] = [
                lambda value: store.set("key", value),
                lambda value: store.multiset({"key": value}),
                lambda value: store.update("key", put(value)),
            ]
            for write in writes:
                with pytest.raises(NotJSON):
                    await write(value)
        assert self.raw_get("key") == data

    @on_store
    async def test_place_of_the_fault_is_named(self, store: Store) -> None:
        with pytest.raises(NotJSON, match=r"\$\.students\[1\]\.score: NaN is not JSON.*'roster'"):
            await store.set("roster", {"students": [{}, {"score": float("nan")}]})
