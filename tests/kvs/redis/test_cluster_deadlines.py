"""Deadlines on a cluster: of changes queued in their slot, and of calls with many chunks."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from tests.busy import late
from tests.kvs.batching.test_errors_deadlines import GRACE, fault_of, plus, times_of

from lo_kvs.kvs import (
    Change,
    Conflict,
    Guard,
    KVSError,
    OutcomeUnknown,
    PersistentRedisKVS,
    TimedOut,
    Unavailable,
)
from lo_kvs.kvs.redis.cluster import node_pipeline
from lo_kvs.kvs.redis.protocol import round_trips
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import ClusterServers

RETRY_FOR = 1.6
LOST = 1  # the node that stands still


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[ClusterServers]:
    """A cluster whose nodes may stand still."""
    with ClusterServers() as cluster:
        yield cluster


def settings_of(cluster: ClusterServers, timeout: float) -> RedisSettings:
    return RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=RETRY_FOR, timeout=timeout)


def tag_on(cluster: ClusterServers, node: int) -> str:
    """What makes keys lie in one slot, of that node."""
    tags = (f"{{{at}}}" for at in itertools.count())
    return next(tag for tag in tags if cluster.node_of(cluster.slot_of(tag.encode())) == node)


@contextlib.contextmanager
def standing_still(cluster: ClusterServers) -> Iterator[None]:
    """The lost node takes connections and bytes, and does nothing."""
    pid = cluster.servers[LOST].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("timeout", [0.3, 5.0], ids=["many tries", "one try"])
@pytest.mark.parametrize("kind", ["set", "update", "get"])
def test_changes_queued_in_a_slot_have_their_own_deadlines(
    own_cluster: ClusterServers, kind: str, timeout: float
) -> None:
    tag = tag_on(own_cluster, LOST)

    async def main() -> None:
        async with PersistentRedisKVS(connection=settings_of(own_cluster, timeout)) as store:
            await store.multiset({f"{tag} {n}": 0 for n in range(60)})
            calls: dict[str, Callable[[int], Awaitable[Any]]] = {
                "set": lambda n: store.set(f"{tag} {n}", 1),
                "update": lambda _: store.update(f"{tag} 0", plus),
                "get": lambda n: store.get(f"{tag} {n}"),
            }
            with standing_still(own_cluster):
                results = await times_of(calls[kind], calls=60, every=0.06)
            assert {error for _, error in results} <= {Unavailable, TimedOut, OutcomeUnknown}
            assert max(results)[0] < RETRY_FOR + late(GRACE)
            assert min(results)[0] > RETRY_FOR / 2
            # One call of the slot at a time: of most others nothing was sent.
            assert sum(error is OutcomeUnknown for _, error in results) < 20
            # Afterwards calls have their full deadline again.
            await store.set(f"{tag} 0", 1)
            assert await store.update(f"{tag} 0", plus) == 2

    asyncio.run(main())


def test_changes_that_waited_through_an_outage_keep_their_order(
    own_cluster: ClusterServers,
) -> None:
    tag = tag_on(own_cluster, LOST)

    async def main() -> None:
        where = settings_of(own_cluster, 0.3)
        async with PersistentRedisKVS(connection=where) as store:
            await store.set(tag, 0)
            outcomes: list[object] = []
            last = asyncio.get_running_loop().create_future()
            clock = asyncio.get_running_loop().time
            with standing_still(own_cluster):
                for n in range(100):
                    deadline = None if n % 3 else clock() + 1.5
                    change = Change(tag, b"%d" % n, {tag: b"%d" % (n + 1)})
                    store.submit(change, outcomes.append, deadline)
                    await asyncio.sleep(0.01)
            store.submit(Change(tag, b"100", {}), last.set_result)
            assert await last is None
            assert outcomes == [None] * 100

    asyncio.run(main())


def test_explicit_deadline_behind_calls_with_later_deadlines(
    own_cluster: ClusterServers,
) -> None:
    tag = tag_on(own_cluster, LOST)

    async def main() -> None:
        clock = asyncio.get_running_loop().time
        async with PersistentRedisKVS(connection=settings_of(own_cluster, 5)) as store:
            await store.multiset({tag: 0, f"{tag} own": 0})

            async def put(key: str, deadline: float | None = None) -> None:
                change = Change(key, Guard.ANY, {key: b"1"})
                (outcome,) = await store.commit([change], deadline=deadline)
                if isinstance(outcome, KVSError):
                    raise outcome

            async def took(call: Awaitable[object]) -> float:
                start = time.monotonic()
                assert isinstance(await fault_of(call, at_most=8.5), Unavailable | OutcomeUnknown)
                return time.monotonic() - start

            with standing_still(own_cluster):
                others = [asyncio.create_task(took(each)) for each in (put(tag), store.get(tag))]
                await asyncio.sleep(0.1)
                others += [asyncio.create_task(took(put(f"{tag} {n}"))) for n in range(3)]
                await asyncio.sleep(0.1)
                own = put(f"{tag} own", clock() + 0.5)
                read = store.read([f"{tag} own"], deadline=clock() + 0.5)
                mine = [asyncio.create_task(took(each)) for each in (own, read)]
                others += [asyncio.create_task(took(store.get(tag)))]
                for seconds in await asyncio.gather(*mine):
                    assert 0.4 < seconds < 0.5 + late(GRACE)
                for seconds in await asyncio.gather(*others):
                    assert RETRY_FOR - 0.2 < seconds < RETRY_FOR + late(GRACE)
            assert await store[f"{tag} own"] == 0

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [0.3, 5.0], ids=["many tries", "one try"])
def test_many_keys_with_one_unavailable_node(own_cluster: ClusterServers, timeout: float) -> None:
    """Keys on the other nodes are still written, and the call takes no longer."""
    items = {f"many {n}": n for n in range(3_000)}
    names = [f"many {n}".encode() for n in range(3_000)]
    on_lost = [own_cluster.node_of(own_cluster.slot_of(name)) == LOST for name in names]
    where = settings_of(own_cluster, timeout)

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset(dict.fromkeys(items, 0))
            with standing_still(own_cluster):
                await fault_of(store.multiset(items), at_most=RETRY_FOR)
            found = await store.multiget(items)
            written = [n for n, lost in enumerate(on_lost) if not lost]
            assert [found[n] for n in written] == written

    asyncio.run(main())


def test_replay_and_its_read_share_one_deadline(
    own_cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call's record answers the retry; then reading the conflicting value hangs."""
    tag = tag_on(own_cluster, LOST)
    reply = round_trips.reply_on

    async def main() -> None:
        async with PersistentRedisKVS(connection=settings_of(own_cluster, 5)) as store:
            await store.set(tag, 1)
            answers = 0

            async def late_lost_and_then_silent(connection: Any) -> object:
                nonlocal answers
                answers += 1
                found = await reply(connection)
                if answers == 1:
                    await asyncio.sleep(RETRY_FOR * 0.75)
                    raise ConnectionError("lost on purpose")
                os.kill(own_cluster.servers[LOST].pid, signal.SIGSTOP)
                return found

            try:
                with monkeypatch.context() as patch:
                    patch.setattr(node_pipeline, "reply_on", late_lost_and_then_silent)
                    change = Change(tag, b"0", {tag: b"2"})
                    start = time.monotonic()
                    (outcome,) = await store.commit([change])
                    seconds = time.monotonic() - start
            finally:
                os.kill(own_cluster.servers[LOST].pid, signal.SIGCONT)
            assert answers == 2
            assert isinstance(outcome, Unavailable)  # it met something else: it was not made
            assert RETRY_FOR - 0.2 < seconds < RETRY_FOR + late(GRACE)
            assert await store.commit([change]) == [Conflict(b"1")]

    asyncio.run(main())


@contextlib.asynccontextmanager
async def coming_and_going(cluster: ClusterServers, away_s: float) -> AsyncIterator[None]:
    """The lost node stands still again and again, and does something in between."""

    async def come_and_go() -> None:
        while True:
            with standing_still(cluster):
                await asyncio.sleep(away_s)
            await asyncio.sleep(0.003)

    task = asyncio.create_task(come_and_go())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize("name", ["multiget", "keys", "dump", "clear"])
def test_flapping_node_does_not_prolong_a_call_of_many_chunks(
    own_cluster: ClusterServers, name: str
) -> None:
    tag = tag_on(own_cluster, LOST)
    many = {f"{tag} {n}": n for n in range(20_000)}

    async def main() -> None:
        where = settings_of(own_cluster, 0.2)
        async with PersistentRedisKVS(connection=where, prefix="many:") as store:
            await store.multiset(many)
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "multiget": lambda: store.multiget(many),
                "keys": store.keys,
                "dump": store.dump,
                "clear": store.clear,
            }
            async with coming_and_going(own_cluster, 0.5):
                error = await fault_of(calls[name](), at_most=RETRY_FOR)
            assert isinstance(error, Unavailable | OutcomeUnknown)
            await store.clear()
            assert await store.keys() == []

    asyncio.run(main())
