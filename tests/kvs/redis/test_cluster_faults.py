"""Cluster nodes that are killed or hang, and lost replies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import re
import signal
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.busy import late

from lo_kvs.kvs import (
    Change,
    Conflict,
    KVSError,
    OutcomeUnknown,
    PersistentRedisKVS,
    Store,
    Unavailable,
)
from lo_kvs.kvs.redis.cluster import node_pipeline
from lo_kvs.kvs.redis.cluster.slot_writer import SlotWriter
from lo_kvs.kvs.redis.protocol import round_trips
from lo_kvs.kvs.redis.protocol.commit_script import Call
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import ClusterServers

LOST = 1  # the node that is disturbed


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[ClusterServers]:
    """A cluster whose nodes may be killed."""
    with ClusterServers() as cluster:
        yield cluster


def keys_of(cluster: ClusterServers, node: int, count: int) -> list[str]:
    keys = (f"key {at}" for at in itertools.count())
    here = (key for key in keys if cluster.node_of(cluster.slot_of(key.encode())) == node)
    return list(itertools.islice(here, count))


@contextlib.contextmanager
def standing_still(cluster: ClusterServers) -> Iterator[None]:
    """The lost node takes connections and bytes, and does nothing."""
    pid = cluster.servers[LOST].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def timed(work: Any) -> tuple[float, Any]:
    """How long it took, and the result or the store's error."""
    clock = asyncio.get_running_loop().time
    start = clock()
    try:
        result = await work
    except KVSError as error:
        result = error
    return clock() - start, result


async def use_all_nodes(cluster: ClusterServers, store: Store, retry_for: float) -> None:
    """Healthy nodes answer at once; calls to the lost node fail at their deadline."""
    lost = keys_of(cluster, LOST, 40)
    well = keys_of(cluster, 0, 40) + keys_of(cluster, 2, 40)
    failing = [asyncio.create_task(timed(store.set(key, 1))) for key in lost]
    failing += [asyncio.create_task(timed(store.get(key))) for key in lost]
    for round_number in range(5):
        took, result = await timed(store.multiset(dict.fromkeys(well, round_number)))
        assert result is None
        assert took < retry_for / 2
        took, result = await timed(store.multiget(well))
        assert result == [round_number] * len(well)
        assert took < retry_for / 2
    for at, (took, result) in enumerate(await asyncio.gather(*failing)):
        kinds = (Unavailable, OutcomeUnknown) if at < len(lost) else Unavailable
        assert isinstance(result, kinds), result
        assert retry_for - 0.5 < took < retry_for + late(0.5)
    # A call that names keys of all nodes tells what it could not do, and does the rest.
    changes = [Change(key, b"4", {key: b"5"}) for key in well] + [Change(lost[0], None, {})]
    took, outcomes = await timed(store.commit(changes))
    assert outcomes[:-1] == [None] * len(well)
    assert isinstance(outcomes[-1], KVSError)
    assert took < retry_for + late(0.5)


def test_killed_node_affects_only_its_own_slots(own_cluster: ClusterServers) -> None:
    where = RedisSettings(cluster=True, nodes=own_cluster.nodes, retry_for=1.5)
    lost = keys_of(own_cluster, LOST, 40)

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset(dict.fromkeys(lost, 0))
            own_cluster.kill(LOST)
            await use_all_nodes(own_cluster, store, where.retry_for)
            # What waits for the node when it comes back is made then.
            patient = PersistentRedisKVS(
                connection=RedisSettings(cluster=True, nodes=own_cluster.nodes, retry_for=60)
            )
            async with patient:
                waiting = asyncio.gather(*(patient.set(key, key) for key in lost))
                await asyncio.sleep(0.3)
                await asyncio.to_thread(own_cluster.restart, LOST)
                await waiting
                assert await store.multiget(lost) == lost
                assert len(await store.keys()) > 40

    asyncio.run(main())


def test_hanging_node_affects_only_its_own_slots(own_cluster: ClusterServers) -> None:
    where = RedisSettings(cluster=True, nodes=own_cluster.nodes, retry_for=1.5, timeout=0.5)

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset(dict.fromkeys(keys_of(own_cluster, LOST, 40), 0))
            with standing_still(own_cluster):
                await use_all_nodes(own_cluster, store, where.retry_for)

    asyncio.run(main())


def test_retried_request_keeps_its_deadline(
    own_cluster: ClusterServers,
) -> None:
    """The ones behind which it waits the second time have later deadlines than it has."""
    where = RedisSettings(cluster=True, nodes=own_cluster.nodes, retry_for=1.0, timeout=0.9)
    keys = keys_of(own_cluster, LOST, 2)

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiget(keys)
            with standing_still(own_cluster):
                first = asyncio.create_task(timed(store.get(keys[0])))
                await asyncio.sleep(0.6)
                second = asyncio.create_task(timed(store.get(keys[1])))
                for took, result in await asyncio.gather(first, second):
                    assert isinstance(result, Unavailable)
                    assert 0.8 < took < 1.0 + late(0.3)

    asyncio.run(main())


def test_new_stores_connect_despite_a_hanging_node(
    own_cluster: ClusterServers,
) -> None:
    where = RedisSettings(cluster=True, nodes=own_cluster.nodes[:2], timeout=8, retry_for=20)
    (key,) = keys_of(own_cluster, 0, 1)

    async def main() -> None:
        with standing_still(own_cluster):
            for _ in range(8):  # whom a store asks first is left to chance
                async with PersistentRedisKVS(connection=where) as store:
                    took, _ = await timed(store.get(key))
                    assert took < 4

    asyncio.run(main())


# -- lost replies ----------------------------------------------------------------------------------


class LostReplies:
    """Loses every n-th or so reply that a node gave, and the connection with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seed: int, share: float) -> None:
        self.lost = 0
        self._share = share
        self._random = random.Random(seed)
        self._reply = round_trips.reply_on
        monkeypatch.setattr(node_pipeline, "reply_on", self.reply)

    async def reply(self, connection: Any) -> object:
        found = await self._reply(connection)
        if self._random.random() < self._share:
            self.lost += 1
            raise ConnectionError("lost on purpose")
        return found


def forget_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for the record of a call where none can be, at each attempt to send it."""
    packed = SlotWriter.packed

    def packed_without_record(self: SlotWriter, *, whole: bool) -> bytes | None:
        if isinstance(self._call, Call):
            other = f"writer:{uuid.uuid4().hex}".encode()
            packed_call = self._call.packed
            command = re.sub(b"writer:[0-9a-f]{32}", other, packed_call.command, count=1)
            changed = packed_call._replace(command=command)
            self._call = self._call._replace(packed=changed)
        return packed(self, whole=whole)

    monkeypatch.setattr(SlotWriter, "packed", packed_without_record)


def count_on(cluster: ClusterServers) -> tuple[int, int]:
    """How many updates came back, of several tasks on two keys, and how many were counted."""
    where = RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=60)

    async def main() -> tuple[int, int]:
        stores = [PersistentRedisKVS(connection=where) for _ in range(2)]

        async def count(task: int) -> None:
            for _ in range(40):
                await stores[task % 2].update(
                    f"key {task % 4 // 2}", lambda n: int(str(n or 0)) + 1
                )

        await asyncio.gather(*(count(task) for task in range(8)))
        counted = sum(await stores[0].multiget(["key 0", "key 1"]))
        for store in stores:
            await store.aclose()
        return 8 * 40, counted

    return asyncio.run(main())


def test_updates_whose_replies_are_lost_count_once(
    cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = LostReplies(monkeypatch, seed=7, share=0.1)
    returned, counted = count_on(cluster)
    assert losses.lost > 30
    assert counted == returned


def test_counting_shows_when_calls_are_not_recorded(
    cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: here the record of a call is looked for where none can be."""
    losses = LostReplies(monkeypatch, seed=7, share=0.1)
    forget_records(monkeypatch)
    returned, counted = count_on(cluster)
    assert losses.lost > 30
    assert counted > returned


def test_conflict_after_a_lost_reply_has_the_current_value(
    cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=60)
    keys = [f"key {at}" for at in range(20)]

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset(dict.fromkeys(keys, 1))
            losses = LostReplies(monkeypatch, seed=3, share=0.3)
            changes = [Change(key, b"0", {key: b"2"}) for key in keys]
            assert await store.commit(changes) == [Conflict(b"1")] * len(keys)
            changes = [Change(key, b"1", {key: b"2"}) for key in keys]
            assert await store.commit(changes) == [None] * len(keys)
            assert losses.lost > 5

    asyncio.run(main())


def test_replies_lost_until_the_deadline_are_unknown(
    cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=0.5)

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.set("key", 1)
            with monkeypatch.context() as patch:
                LostReplies(patch, seed=3, share=1.0)
                took, result = await timed(store.set("key", 2))
                assert isinstance(result, OutcomeUnknown)
                assert took < late(1.0)
                took, result = await timed(store.get("key"))
                assert isinstance(result, Unavailable)  # reading changes nothing
            # It was made, once; and the next call goes on from there.
            assert await store.update("key", lambda value: [value]) == [2]

    asyncio.run(main())
