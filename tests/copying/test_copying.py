"""Copies in Python: bounded groups, and others who write at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lo_kvs.copying import Copy, Difference, copy
from lo_kvs.copying.groups import GROUP_BYTES
from lo_kvs.kvs import (
    Change,
    EphemeralRedisKVS,
    InMemoryKVS,
    Outcome,
    PersistentRedisKVS,
    Store,
)
from lo_kvs.kvs.backend import GROUP_KEYS_MAX
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.server import RedisServer


class Counted(InMemoryKVS):
    """A store that notes how many keys and bytes each reading brought."""

    def __init__(self) -> None:
        super().__init__()
        self.readings: list[tuple[int, int]] = []

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        found = await super().read(keys)
        self.readings.append((len(keys), sum(len(data or b"") for data in found)))
        return found


class Meddled(InMemoryKVS):
    """A store to which another program writes right before the first commit."""

    def __init__(self, key: str, data: bytes | None) -> None:
        super().__init__()
        self._meddle: list[Change] = [Change(key, None, {key: data})]

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        if self._meddle:
            await super().commit([self._meddle.pop()])
        return await super().commit(changes)


async def put(store: Store, values: dict[str, bytes]) -> None:
    changes = [Change(key, None, {key: data}) for key, data in values.items()]
    assert set(await store.commit(changes)) == {None}


def test_large_values_are_read_a_few_at_a_time() -> None:
    async def main() -> None:
        source, target = Counted(), Counted()
        await put(source, {f"{n}": b'"' + bytes([n]) * 1_000_000 for n in range(60)})
        job = await copy(source, target)
        assert job.equal
        assert job.tally.corrupt == 60
        late = source.readings[1:]
        assert late
        assert max(size for _, size in late) <= GROUP_BYTES

    asyncio.run(main())


def test_small_values_are_read_many_at_a_time() -> None:
    async def main() -> None:
        source, target = Counted(), Counted()
        await put(source, {f"{n}": b"1" for n in range(10_000)})
        assert (await copy(source, target)).equal
        assert max(keys for keys, _ in source.readings) == GROUP_KEYS_MAX
        assert len(source.readings) < 2 * (10_000 / GROUP_KEYS_MAX + 10)

    asyncio.run(main())


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("data", [b"1", b"2"])
def test_others_who_write_the_same_key(overwrite: bool, data: bytes) -> None:
    async def main() -> None:
        source, target = InMemoryKVS(), Meddled("a", data)
        await put(source, {"a": b"1", "b": b"1"})
        job = await copy(source, target, overwrite=overwrite)
        (found,) = await target.read(["a"])
        assert found == (b"1" if overwrite else data)
        assert job.equal == (found == b"1")
        tally = job.tally
        expected = {
            (False, b"1"): (1, 0, 1, 0),
            (True, b"1"): (1, 0, 1, 0),
            (False, b"2"): (1, 0, 0, 1),
            (True, b"2"): (1, 1, 0, 0),
        }[overwrite, data]
        assert (tally.copied, tally.replaced, tally.equal, tally.left) == expected
        assert tally.seen == 2

    asyncio.run(main())


def test_key_that_changes_during_catch_up() -> None:
    async def main() -> None:
        source, target = InMemoryKVS(), InMemoryKVS()
        await put(source, {"a": b"1"})
        job = Copy(source, target, catch_up=True)
        await job.run()
        await source.commit([Change("a", b"1", {"a": b"2"})])
        commit = target.commit

        async def other_writer_is_first(
            changes: Sequence[Change], *, deadline: float | None = None
        ) -> list[Outcome]:
            await commit([Change("a", b"1", {"a": b"3"})])
            return await commit(changes)

        target.commit = other_writer_is_first  # type: ignore[method-assign]
        await job.check()
        assert not job.equal
        assert job.differences.names == {Difference.OTHER: ["a"]}
        assert await target.read(["a"]) == [b"3"]
        assert job.checked is not None
        assert job.checked.caught_up == 0

    asyncio.run(main())


def test_store_and_itself() -> None:
    store = InMemoryKVS()
    with pytest.raises(ValueError, match="expected two stores"):
        Copy(store, store)


def test_unreplicated_keys_are_counted(redis_server: RedisServer, redis_url: str) -> None:
    async def main() -> None:
        where = RedisSettings(url=redis_url)
        source = InMemoryKVS()
        await put(source, {"a": b"1", "b": b"2"})
        target = PersistentRedisKVS(connection=where, wait_replicas=1, wait_timeout=0.01)
        async with target:
            job = await copy(source, target)
        assert job.equal
        assert job.tally.pending == job.tally.copied == 2

    asyncio.run(main())


def test_keys_that_expire_in_the_target_are_reported(redis_url: str) -> None:
    async def main() -> None:
        source = InMemoryKVS()
        await put(source, {"a": b"1"})
        target = EphemeralRedisKVS(0.05, connection=RedisSettings(url=redis_url))
        async with target:
            job = Copy(source, target, catch_up=True)
            await job.run()
            while await target.exists("a"):  # noqa: ASYNC110 - expiry sends no notification
                await asyncio.sleep(0.01)
            await job.check()
        assert job.differences.counts == {Difference.MISSING: 1}

    asyncio.run(main())
