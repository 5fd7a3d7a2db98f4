"""Contract tests for opening, clearing, closing and reopening a store."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from lo_kvs.kvs import Change, ClearRefused, Guard, Store, StoreClosed
from lo_kvs.testing.contract.base import StoreUnderTest, on_store


class LifeContract(StoreUnderTest):
    """What opening, clearing and closing do."""

    @on_store
    async def test_clear(self, store: Store) -> None:
        items = {f"key {at}/{at}": at for at in range(1_100)}
        await store.multiset(items)
        if self.clear_needs_everything:
            with pytest.raises(ClearRefused, match="everything=True"):
                await store.clear()
            assert await store.dump() == items
            await store.clear(everything=True)
        else:
            await store.clear()
        assert await store.keys() == []
        assert await store.multiget(items) == [None] * len(items)
        await store.clear(everything=True)
        await store.set("key", 1)
        assert await store["key"] == 1

    @on_store
    async def test_closed_store_says_so(self, store: Store, tmp_path: Path) -> None:
        await store.set("key", 1)
        await store.dump(tmp_path / "dump.json")
        await store.aclose()
        await store.aclose()
        change = Change("key", Guard.ANY, {"key": b"2"})
        for use in (
            lambda: store.get("key"),
            lambda: store["key"],
            lambda: store.set("key", 2),
            lambda: store.multiget(["key"]),
            lambda: store.multiset({"key": 2}),
            lambda: store.exists("key"),
            lambda: store.remove("key"),
            lambda: store.update("key", lambda _: 2),
            store.keys,
            store.dump,
            lambda: store.load(tmp_path / "dump.json"),
            lambda: store.clear(everything=True),
            lambda: store.read(["key"]),
            lambda: store.commit([change]),
        ):
            with pytest.raises(StoreClosed):
                await use()
        with pytest.raises(StoreClosed):
            [key async for key in store.scan()]
        with pytest.raises(StoreClosed):
            store.submit(change, print)
        assert self.raw_get("key") in {b"1", None}

    def test_leaving_the_block_closes_the_store(self) -> None:
        async def use() -> None:
            async with self.make_store() as store:
                await store.set("key", 1)
            with pytest.raises(StoreClosed):
                await store.get("key")

        asyncio.run(use())

    def test_what_was_handed_in_is_written_before_the_store_closes(self) -> None:
        async def use() -> None:
            outcomes: list[object] = []
            async with self.make_store() as store:
                for at in range(50):
                    key = f"key {at}"
                    store.submit(Change(key, None, {key: b"1"}), outcomes.append)
            assert outcomes == [None] * 50

        asyncio.run(use())

    def test_event_loops_one_after_another(self) -> None:
        store = self.make_store()
        for at in range(5):
            asyncio.run(store.set(f"key {at}", at))
            assert asyncio.run(store.update("counter", lambda n: (n or 0) + 1)) == at + 1

        async def end() -> None:
            assert await store.multiget([f"key {at}" for at in range(5)]) == list(range(5))
            assert len(await store.keys()) == 6
            await store.aclose()

        asyncio.run(end())
        gc.collect()  # a file or socket left open is reported now

    def test_opened_again(self) -> None:
        async def write() -> None:
            async with self.make_store() as store:
                await store.multiset({"a": {"kept": True}, "é/\0": 2, "n" * 1_000: 3})
                await store.remove("a")
                await store.set("a", [1])

        async def read() -> None:
            async with self.make_store() as store:
                found = await store.multiget(["a", "é/\0", "n" * 1_000])
                assert found == ([[1], 2, 3] if self.reopens else [None] * 3)
                assert len(await store.keys()) == (3 if self.reopens else 0)
                await store.set("a", [2])
                assert await store["a"] == [2]

        asyncio.run(write())
        asyncio.run(read())
