"""Sentinel failovers under load: a short gap, nothing counted twice, nothing lost that was kept."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from tests.faults.tally import Tally
from tests.faults.worker import fault_count, metadata_of, one_more
from tests.faults.workers import WAIT_MAX_S, tell

from lo_kvs.kvs import KVS, PersistentRedisKVS
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.sentinel import SentinelSetup

GAP_MAX_S = 5.0
TIMEOUT_S = 2.0
#: Connections in use have the Sentinels asked each second; the rest is for a busy machine.
NOTICED_S = 2.5
COUNTERS = [f"counter {number}" for number in range(4)]
STUDENTS = [f"student {number}" for number in range(4)]
#: Asynchronous replication: what a killed primary acknowledged just before may be lost with it.
LAG_S = 1.0


@dataclass
class Count:
    """A counter, and what its one client was told: when, and up to which number."""

    name: str
    acknowledged: list[tuple[float, int]] = field(default_factory=list)

    def longest_gap_s(self, since: float) -> float:
        """The longest time without an answer, after `since` or around it."""
        times = [at for at, _ in self.acknowledged]
        pairs = itertools.pairwise(times)
        return max((later - earlier for earlier, later in pairs if later > since), default=0.0)

    def lost(self) -> list[tuple[float, int]]:
        """What was acknowledged and is gone: numbers that were given a second time.

        Fails if a number was skipped: then something was counted that no caller was told of.
        """
        gone: list[tuple[float, int]] = []
        standing: list[tuple[float, int]] = []
        for at, number in self.acknowledged:
            while standing and standing[-1][1] >= number:
                gone.append(standing.pop())
            before = standing[-1][1] if standing else 0
            assert number == before + 1, f"{self.name}: {number} came after {before}"
            standing.append((at, number))
        return gone


class Load:
    """Clients that count one after another, each on a key of its own, and can be held up."""

    def __init__(self, store: PersistentRedisKVS) -> None:
        self.counts = [Count(name) for name in (*COUNTERS, *STUDENTS)]
        self._store = store
        self._going = asyncio.Event()
        self._end = False
        self._busy = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        for count in self.counts:
            self._tasks.append(asyncio.create_task(self._run(count, await self._counter(count))))
        self._going.set()

    async def pause(self) -> None:
        """Hold the clients up, and wait until nothing is under way."""
        self._going.clear()
        while self._busy:  # noqa: ASYNC110 - a test may look twice
            await asyncio.sleep(0.005)

    def lost(self) -> set[tuple[float, str, int]]:
        """Every number that was acknowledged and is gone, with the time and the counter."""
        return {(at, count.name, number) for count in self.counts for at, number in count.lost()}

    def resume(self) -> None:
        self._going.set()

    async def end(self) -> None:
        self._end = True
        await asyncio.gather(*self._tasks)

    async def answered_by_all(self, since: float) -> float:
        """Wait until each client got an answer after `since`; returns the longest gap."""
        deadline = time.monotonic() + WAIT_MAX_S
        while not all(count.acknowledged[-1][0] > since for count in self.counts):
            assert time.monotonic() < deadline, "some client got no answer any more"
            for task in self._tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.01)
        return max(count.longest_gap_s(since) for count in self.counts)

    async def _counter(self, count: Count) -> Callable[[], Awaitable[Any]]:
        if count.name in COUNTERS:
            return functools.partial(self._store.update, count.name, one_more)
        process: Any = await fault_count(metadata_of(count.name))
        return functools.partial(process, "event", {})

    async def _run(self, count: Count, one: Callable[[], Awaitable[Any]]) -> None:
        while not self._end:
            await self._going.wait()
            self._busy += 1
            try:
                number = await one()
            finally:
                self._busy -= 1
            count.acknowledged.append((time.monotonic(), number))
            await asyncio.sleep(0.001)  # others use the machine too


async def stored(store: PersistentRedisKVS, load: Load) -> dict[str, Any]:
    """What stands in Redis, past the engine's own copies."""
    keyed: Any = fault_count.__dict__["_kvs_keyed"]
    found: dict[str, Any] = {}
    for count in load.counts:
        if count.name in COUNTERS:
            found[count.name] = await store[count.name]
        else:
            state: Any = await store[keyed.keys(metadata_of(count.name), {}).internal]
            found[count.name] = state["count"]
    return found


@asynccontextmanager
async def loaded(setup: SentinelSetup) -> AsyncIterator[Load]:
    """Clients at work on the servers. In the end what stands must be what they were told last."""
    where = RedisSettings(
        sentinels=setup.addresses, sentinel_service=setup.service, timeout=TIMEOUT_S, retry_for=30
    )
    async with PersistentRedisKVS(connection=where) as store:
        KVS.add_item("default", store)
        load = Load(store)
        await load.begin()
        await asyncio.sleep(0.5)
        yield load
        await load.end()
    # What the Sentinels hold to be the primary has it, wherever the clients were in the end. So
    # nothing else was lost, and nothing was counted twice.
    async with PersistentRedisKVS(connection=RedisSettings(url=setup.primary().url)) as primary:
        assert await stored(primary, load) == {
            count.name: count.acknowledged[-1][1] for count in load.counts
        }
    tell(f"{sum(len(count.acknowledged) for count in load.counts)} acknowledged")


async def with_replicas(setup: SentinelSetup, load: Load, replicas: int) -> None:
    """Hold the clients up until so many replicas have everything."""
    await load.pause()
    await asyncio.to_thread(setup.wait_until_in_step, replicas)


async def break_all(setup: SentinelSetup) -> tuple[list[float], list[int]]:
    """The longest gap of each failover, and how much it lost."""
    gaps: list[float] = []
    async with loaded(setup) as load:
        # Killed while the replicas have everything.
        await with_replicas(setup, load, 3)
        await asyncio.to_thread(setup.primary().kill)
        load.resume()
        gaps.append(await load.answered_by_all(time.monotonic()))
        assert load.lost() == set()

        # Killed under load, once the other replicas follow the new primary.
        await with_replicas(setup, load, 2)
        load.resume()
        await asyncio.sleep(2.0)  # the Sentinels leave time between two failovers
        await asyncio.to_thread(setup.primary().kill)
        killed = time.monotonic()  # whatever is answered from now on, another one answered
        gaps.append(await load.answered_by_all(killed))
        by_kill = load.lost()
        assert [(at - killed, *what) for at, *what in by_kill if at < killed - LAG_S] == []

        # Another one promoted, while the old primary lives on and goes on taking writes.
        await with_replicas(setup, load, 1)
        resumed = time.monotonic()  # the replica has all that was acknowledged until now
        load.resume()
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await asyncio.to_thread(setup.fail_over)
        promoted = time.monotonic()
        await asyncio.sleep(NOTICED_S + 1.0)
        gaps.append(await load.answered_by_all(began))
        by_old = load.lost() - by_kill
        late = promoted + NOTICED_S
        assert [(at - began, *what) for at, *what in by_old if not resumed < at < late] == []
    return gaps, [0, len(by_kill), len(by_old)]


def test_failovers_under_load(tally: Tally) -> None:
    with SentinelSetup(replicas=3) as setup:
        gaps, lost = asyncio.run(break_all(setup))
    tell(f"gaps {gaps}, lost {lost}")
    assert max(gaps) < GAP_MAX_S, gaps
    gap_list = ", ".join(f"{gap:.1f}" for gap in gaps)
    tally(
        "T10",
        len(gaps),
        f"gaps {gap_list} s; of what was not replicated {lost[1]} and {lost[2]} lost, nothing else",
    )


def test_planned_failover_loses_nothing(tally: Tally) -> None:
    """As the docs advise: writes are held up at the old primary before another is promoted."""

    async def main(setup: SentinelSetup) -> float:
        async with loaded(setup) as load:
            began = time.monotonic()
            with redis.Redis.from_url(setup.primary().url) as client:
                client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            await asyncio.to_thread(setup.fail_over)
            gap = await load.answered_by_all(time.monotonic())
            assert load.lost() == set()
            tell(f"{time.monotonic() - began:.1f} s")
        return gap

    with SentinelSetup(replicas=1) as setup:
        gap = asyncio.run(main(setup))
    assert gap < GAP_MAX_S
    tally("T10", 1, f"gap {gap:.1f} s; nothing lost, as writes were paused before it")
