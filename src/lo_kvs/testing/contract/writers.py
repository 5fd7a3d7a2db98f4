"""Contract tests for concurrent writers: no update is lost or applied twice."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from typing import Any

from lo_kvs.kvs import Change, Conflict, Guard, Store
from lo_kvs.testing.contract.base import StoreUnderTest, on_store, together

WRITERS = 8


class WriterContract(StoreUnderTest):
    """What many tasks, threads and stores do to one key."""

    @on_store
    async def test_updates_of_many_writers_all_count(self, store: Store) -> None:
        others = [self.make_store() for _ in range(3)] if self.reopens else []
        stores = [store, *others]

        async def write(writer: int) -> list[int]:
            own = stores[writer % len(stores)]
            return [await _counted(own, "counter") for _ in range(self.updates_per_writer)]

        counts = await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
        total = WRITERS * self.updates_per_writer
        assert await store["counter"] == total
        # Each update returned what it had written, so all are different, and each writer's grow.
        assert sorted(itertools.chain(*counts)) == list(range(1, total + 1))
        assert all(own == sorted(own) for own in counts)
        for other in others:
            await other.aclose()

    def test_event_loops_in_several_threads(self) -> None:
        first = self.make_store()
        stores = [first, self.make_store() if self.reopens else first]
        failed: list[BaseException] = []

        async def write(own: Store, name: str) -> None:
            for at in range(50):
                await _counted(own, "counter")
                await own.set(f"{name} {at}", at)

        def run(own: Store, name: str) -> None:
            try:
                asyncio.run(write(own, name))
            except BaseException as error:
                failed.append(error)
                raise

        threads = [
            threading.Thread(target=run, args=(stores[at % 2], f"thread {at}")) for at in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        async def look() -> None:
            assert await first["counter"] == 200
            assert len(await first.keys("thread")) == 200
            for each in stores:
                await each.aclose()

        asyncio.run(look())
        assert not failed
        gc.collect()  # a file or socket left open is reported now

    @on_store
    async def test_pairs_never_part(self, store: Store) -> None:
        """Both keys of a change move together, whoever else moves them."""
        keys = together("internal"), together("external")

        async def write(writer: int) -> None:
            for at in range(30):
                data = f'"{writer} {at}"'.encode()
                change = Change(keys[0], Guard.ANY, dict.fromkeys(keys, data))
                assert await store.commit([change]) == [None]

        await asyncio.gather(*(write(writer) for writer in range(4)))
        internal, external = await store.multiget(keys)
        assert internal == external

    @on_store
    async def test_one_of_many_wins_an_absent_key(self, store: Store) -> None:
        changes = [Change("key", None, {"key": str(at).encode()}) for at in range(20)]
        answers = await asyncio.gather(*(store.commit([change]) for change in changes))
        won = [at for at, (outcome,) in enumerate(answers) if outcome is None]
        assert len(won) == 1
        lost = [outcome for (outcome,) in answers if outcome is not None]
        assert lost == [Conflict(str(won[0]).encode())] * 19
        assert await store["key"] == won[0]

    @on_store
    async def test_removing_and_updating_at_once(self, store: Store) -> None:
        """Each removal that says so took one value away, with all that was counted in it."""
        removed = 0

        async def remove() -> None:
            nonlocal removed
            for _ in range(40):
                removed += await store.remove("counter")
                await asyncio.sleep(0)

        async def count() -> list[int]:
            return [await _counted(store, "counter") for _ in range(40)]

        counts, _ = await asyncio.gather(count(), remove())
        starts = counts.count(1)
        assert removed == starts - await store.exists("counter")

    @on_store
    async def test_cancelled_callers_disturb_nobody(self, store: Store) -> None:
        calls = [asyncio.create_task(_counted(store, "counter")) for _ in range(60)]
        reads = [asyncio.create_task(store.get("counter")) for _ in range(60)]
        writes = [asyncio.create_task(store.set(f"key {at}", at)) for at in range(60)]
        for at in range(60):
            if at % 10 == 0:
                await asyncio.sleep(0)  # so that some are cancelled before and some on the way
            if at % 2:
                for task in (calls[at], reads[at], writes[at]):
                    task.cancel()
        results = await asyncio.gather(*calls, *reads, *writes, return_exceptions=True)
        for at, result in enumerate(results):
            if at % 2 == 0:
                assert not isinstance(result, BaseException), result
            else:
                assert not isinstance(result, Exception), result
        # A call that was cancelled may count or not; all others count once.
        assert 30 <= await store["counter"] <= 60
        kept = await store.multiget([f"key {at}" for at in range(0, 60, 2)])
        assert kept == list(range(0, 60, 2))
        await store.set("after", 1)
        assert await store["after"] == 1

    @on_store
    async def test_callers_that_time_out_leave_the_store_usable(self, store: Store) -> None:
        for at in range(10):
            try:
                async with asyncio.timeout(0):
                    await store.set("key", at)
            except TimeoutError:
                continue
        assert await store.update("key", lambda value: [value]) is not None


async def _counted(store: Store, key: str) -> int:
    def count(value: Any) -> int:
        return int(value or 0) + 1

    written = await store.update(key, count)
    assert isinstance(written, int)
    return written
