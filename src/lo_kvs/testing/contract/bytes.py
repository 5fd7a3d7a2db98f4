"""Contract tests for stored bytes: old, corrupt and large values, and their TTL."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lo_kvs.kvs import Change, CorruptValue, Guard, InvalidKey, NotJSON, Store
from lo_kvs.kvs.codec import Json
from lo_kvs.stream_analytics.helpers import kvs_pipeline
from lo_kvs.stream_analytics.pipeline import Pipeline
from lo_kvs.testing.contract.base import StoreUnderTest, on_store, same, together
from lo_kvs.testing.contract.cases import VALUES

#: What is no JSON, and might stand in a store all the same.
CORRUPT = [
    b"",
    b" ",
    b"{",
    b'{"a": 1',
    b"[1,]",
    b"nul",
    b"\xff\xfe",
    b'"\xff"',
    b"'a'",
    b"1 2",
    b"\0",
]

#: What older programs wrote and the codec itself never would.
OLD: list[Any] = [
    {"nan": float("nan"), "list": [float("inf"), -float("inf")]},
    {"big": 12345678901234567890123, "bigger": [10**60]},
    {"é": "\U0001f600", "\u2028": "\ud83d"},
]


class BytesContract(StoreUnderTest):
    """What a store does with the bytes that stand in it."""

    @on_store
    async def test_text_that_json_dumps_wrote(self, store: Store) -> None:
        async def read(key: str, value: Any) -> None:
            for indent in (None, 4):
                for ascii_only in (True, False):
                    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
                    self.raw_set(key, text.encode("utf-8", "backslashreplace"))
                    assert same(await store[key], value)
                    assert same(await store.multiget([key]), [value])

        values = enumerate([*VALUES, *OLD])
        await asyncio.gather(*(read(f"key {at}", value) for at, value in values))
        dumped = await store.dump()
        assert len(dumped) == len(VALUES) + len(OLD)

    @on_store
    async def test_corrupt_value_is_told_and_left(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        await store.set("good", 1)
        for data in CORRUPT:
            self.raw_set("bad", data)
            for use in (
                lambda: store.get("bad"),
                lambda: store["bad"],
                lambda: store.multiget(["good", "bad"]),
                lambda: store.update("bad", lambda _: 1),
            ):
                with pytest.raises(CorruptValue) as corrupt:
                    await use()
                assert corrupt.value.key == "bad"
            assert await store.exists("bad") is True
            assert await store.read(["bad"]) == [data]
            assert sorted(await store.keys()) == ["bad", "good"]
            caplog.clear()
            with caplog.at_level(logging.WARNING, "lo_kvs.kvs"):
                assert await store.dump() == {"good": 1}
            assert "'bad'" in caplog.text
            assert self.raw_get("bad") == data

    @on_store
    async def test_corrupt_value_is_replaced_and_removed(self, store: Store) -> None:
        for data in CORRUPT:
            self.raw_set("bad", data)
            assert await store.remove("bad") is True
            assert self.raw_get("bad") is None
            self.raw_set("bad", data)
            await store.set("bad", 2)
            assert await store["bad"] == 2

    @on_store
    async def test_large_value(self, store: Store) -> None:
        half = self.large_bytes // 2
        value: Any = {"text": "é" * (half // 2), "parts": ["x" * 1_000] * (half // 1_000)}
        await store.set("large", value)
        assert len(self.raw_get("large") or b"") > self.large_bytes
        assert await store["large"] == value
        grown = await store.update("large", _with_n)
        assert grown == {**value, "n": 1}
        data = self.raw_get("large")
        assert await store.commit([Change("large", data, {"large": b"1"})]) == [None]
        assert await store["large"] == 1

    @on_store
    async def test_many_keys_in_one_call(self, store: Store) -> None:
        items: dict[str, Any] = {f"key {at}": {"n": at} for at in range(2_000)}
        await store.multiset(items)
        assert await store.multiget(items) == list(items.values())
        backwards = await store.multiget(["absent", *reversed(items)])
        assert backwards == [None, *reversed(items.values())]
        assert sorted(await store.keys()) == sorted(items)
        assert await store.dump() == items

    @on_store
    async def test_dump_and_load(self, store: Store, tmp_path: Path) -> None:
        items: dict[str, Any] = {f"key {at}": value for at, value in enumerate(VALUES)}
        items |= {"": "empty", "é/\0": [None], "null": None}
        await store.multiset(items)
        file = tmp_path / "dump.json"
        assert same(sorted((await store.dump(file)).items()), sorted(items.items()))
        assert same(sorted(json.loads(file.read_bytes()).items()), sorted(items.items()))
        await store.clear(everything=True)
        assert await store.keys() == []
        await store.multiset({"other": 1, "null": "not this"})
        assert await store.load(str(file)) == len(items)
        expected = sorted({**items, "other": 1}.items())
        assert same(sorted((await store.dump()).items()), expected)

    @on_store
    async def test_dump_of_an_empty_store_loads(self, store: Store, tmp_path: Path) -> None:
        assert await store.dump(tmp_path / "dump.json") == {}
        assert json.loads((tmp_path / "dump.json").read_bytes()) == {}
        assert await store.load(tmp_path / "dump.json") == 0
        assert await store.keys() == []

    @on_store
    async def test_dump_keeps_text_that_the_codec_would_refuse(
        self, store: Store, tmp_path: Path
    ) -> None:
        texts = {f"old {at}": json.dumps(value).encode() for at, value in enumerate(OLD)}
        texts |= {"deep": b"[" * 900 + b"]" * 900, "exponent": b"[1E5, 1.50, 1e400]"}
        texts |= {"indented": json.dumps({"a": ["\u2028"]}, indent=2).encode()}
        for key, data in texts.items():
            self.raw_set(key, data)
        await store.dump(tmp_path / "dump.json")
        values = await store.multiget(texts)
        await store.clear(everything=True)
        assert await store.load(tmp_path / "dump.json") == len(texts)
        assert same(await store.multiget(texts), values)

    @on_store
    async def test_file_that_cannot_be_loaded_changes_nothing(
        self, store: Store, tmp_path: Path
    ) -> None:
        await store.set("kept", 1)
        file = tmp_path / "dump.json"
        with pytest.raises(FileNotFoundError):
            await store.load(file)
        for data in (b"", b"[1]", b"null", b'{"a": 1', b'{"a": 1, "b": }', b"\xff", b'{"a": 1}x'):
            file.write_bytes(data)
            with pytest.raises(NotJSON):
                await store.load(file)
        file.write_bytes(b'{"a": 1, "__lokvs:b": 2}')
        with pytest.raises(InvalidKey):
            await store.load(file)
        assert await store.dump() == {"kept": 1}

    @on_store
    async def test_every_write_gives_the_value_its_whole_ttl(
        self, store: Store, tmp_path: Path
    ) -> None:
        await store.set("dumped", 1)
        await store.dump(tmp_path / "dump.json")

        async def reducer(_event: Any, state: Any) -> tuple[Any, Any]:
            return state + 1, state + 1

        made = kvs_pipeline(null_state=0, qualname_override="reducer")(reducer)
        pipeline = Pipeline([{"context": "source", "function": made}])
        event = {"client": {"event": "keystroke"}, "metadata": {"source": "source"}}
        ((_, states),) = pipeline.plan(event)

        pair = together("committed"), together("committed too")

        def put(key: str) -> Change:
            return Change(together("guard"), Guard.ANY, {key: b"1", pair[1]: b"1"})

        writes: dict[tuple[str, ...], Callable[[], Awaitable[object]]] = {
            ("set",): lambda: store.set("set", 1),
            ("multi", "multi too"): lambda: store.multiset({"multi": 1, "multi too": 2}),
            ("updated",): lambda: store.update("updated", lambda _: 1),
            pair: lambda: store.commit([put(pair[0])]),
            ("dumped",): lambda: store.load(tmp_path / "dump.json"),
            tuple(states): lambda: pipeline.process(event, store=store),
        }
        for keys, write in writes.items():
            await write()
            for key in keys:
                self._has_its_whole_ttl(key)
                self.raw_set_ttl_ms(key, 600_000 if self.ttl_s is None else 5_000)
            await write()
            for key in keys:
                self._has_its_whole_ttl(key)

    @on_store
    async def test_reading_changes_no_ttl(self, store: Store, tmp_path: Path) -> None:
        await store.set("key", 1)
        self.raw_set_ttl_ms("key", 5_000)
        before = self.raw_ttl_ms("key")
        await store.get("key")
        await store.multiget(["key"])
        await store.exists("key")
        await store.keys()
        await store.dump(tmp_path / "dump.json")
        await store.commit([Change("key", b"no", {"key": b"2"})])
        after = self.raw_ttl_ms("key")
        assert (before is None) is (after is None)
        assert after is None or after <= 5_000

    def _has_its_whole_ttl(self, key: str) -> None:
        ttl_ms = self.raw_ttl_ms(key)
        if self.ttl_s is None:
            assert ttl_ms is None
        else:
            assert ttl_ms is not None
            # Ten seconds for a test that was held up between writing and asking.
            assert self.ttl_s * 1000 - 10_000 < ttl_ms <= self.ttl_s * 1000


def _with_n(value: Any) -> Json:
    return {**value, "n": 1}
