"""Contract tests for keys: any text is valid, all are distinct, other types are rejected."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from lo_kvs.kvs import Change, Guard, InvalidKey, Store
from lo_kvs.testing.contract.base import StoreUnderTest, on_store
from lo_kvs.testing.contract.cases import KEYS, NO_KEYS


class KeyContract(StoreUnderTest):
    """What a store takes as keys, and how it tells them apart."""

    @on_store
    async def test_hostile_key_in_every_method(self, store: Store, tmp_path: Path) -> None:
        async def use(key: str) -> None:
            assert await store[key] is None
            await store.set(key, [key])
            assert json.loads(self.raw_get(key) or b"") == [key]
            assert await store[key] == [key]
            assert await store.exists(key) is True
            assert await store.multiget([key, "absent", key]) == [[key], None, [key]]
            assert key in await store.keys(key)
            assert await store.update(key, lambda value: [value]) == [[key]]
            await store.multiset({key: {key: key}})

        async def remove(key: str) -> None:
            assert await store.remove(key) is True
            assert self.raw_get(key) is None

        async def commit(key: str) -> None:
            data = self.raw_get(key)
            assert await store.commit([Change(key, data, {key: None})]) == [None]
            assert self.raw_get(key) is None

        values = {key: {key: key} for key in KEYS}
        await asyncio.gather(*map(use, KEYS))
        assert await store.dump(tmp_path / "dump.json") == values
        await asyncio.gather(*map(remove, KEYS))
        assert await store.load(tmp_path / "dump.json") == len(KEYS)
        assert await store.multiget(KEYS) == list(values.values())
        await asyncio.gather(*map(commit, KEYS))
        assert await store.keys() == []

    @on_store
    async def test_no_two_keys_are_one(self, store: Store) -> None:
        assert len(set(KEYS)) == len(KEYS)
        await store.multiset({key: at for at, key in enumerate(KEYS)})
        assert await store.multiget(KEYS) == list(range(len(KEYS)))
        listed = await store.keys()
        assert sorted(listed) == sorted(KEYS)
        assert await store.dump() == {key: at for at, key in enumerate(KEYS)}
        for key in KEYS[::2]:
            assert await store.remove(key) is True
        assert await store.multiget(KEYS[::2]) == [None] * len(KEYS[::2])
        assert await store.multiget(KEYS[1::2]) == list(range(len(KEYS)))[1::2]
        assert sorted(await store.keys()) == sorted(KEYS[1::2])

    @on_store
    async def test_keys_that_begin_with_a_prefix(self, store: Store) -> None:
        await store.multiset(dict.fromkeys(KEYS))
        # Some keys are also prefixes of others; the patterns and the empty key are among these.
        for prefix in {key[:length] for key in KEYS[::9] for length in (0, 1, 2)} | set("*?[^%"):
            expected = sorted(key for key in KEYS if key.startswith(prefix))
            assert sorted(await store.keys(prefix)) == expected
        scanned = [key async for key in store.scan("foo")]
        assert sorted(scanned) == ["foo", "foo/", "foo/_bar", "foo/bar"]

    @on_store
    async def test_what_can_be_no_key_is_refused_in_every_method(
        self, store: Store, tmp_path: Path
    ) -> None:
        await store.set("kept", 1)
        for key in NO_KEYS:
            for use in (
                lambda key: store[key],
                store.get,
                store.exists,
                store.remove,
                lambda key: store.multiget(["kept", key]),
                lambda key: store.read(["kept", key]),
                lambda key: store.set(key, 1),
                lambda key: store.multiset({"other": 1, key: 1}),
                lambda key: store.update(key, lambda _: 1),
                lambda key: store.commit([Change("kept", Guard.ANY, {key: b"1"})]),
                lambda key: store.commit([Change(key, None, {"other": b"1"})]),
                lambda key: store.commit(
                    [Change("other", None, {"other": b"1"}), Change(key, None, {})]
                ),
            ):
                with pytest.raises(InvalidKey) as refused:
                    await use(key)
                assert refused.value.key == key
        await self._refused_where_only_text_can_be(store, tmp_path / "load.json")
        assert await store.dump() == {"kept": 1}
        assert self.raw_get("other") is None

    async def _refused_where_only_text_can_be(self, store: Store, file: Path) -> None:
        for key in [key for key in NO_KEYS if isinstance(key, str)]:
            with pytest.raises(InvalidKey):
                await store.keys(key)
            with pytest.raises(InvalidKey):
                [listed async for listed in store.scan(key)]
            text = json.dumps({"other": 1, key: 1})
            if key in json.loads(text):  # two halves become the one character that they are
                file.write_text(text, "utf-8")  # noqa: ASYNC240
                with pytest.raises(InvalidKey):
                    await store.load(file)
