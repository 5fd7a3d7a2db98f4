"""A replica is promoted: the errors of the old primary's clients, and the data of both branches."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Self

import pytest
import redis
from tests.busy import late
from tests.faults.stored import stored_counts, student_counts
from tests.faults.tally import Tally
from tests.faults.worker import COUNTERS, fault_count, key_of, metadata_of, one_more
from tests.faults.worker import STUDENTS as COUNTED
from tests.faults.workers import Worker, released, tell, totals

from lo_kvs.kvs import KVS, PersistentRedisKVS, Unavailable
from lo_kvs.kvs.redis.protocol import commit_script
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import (
    Fault,
    FaultProxy,
    RedisServer,
    cut_off,
    follow,
    promote,
    wait_until_replicated,
)
from lo_kvs.testing.servers.replication import replication

RETRY_S = 1.0
STUDENTS = ("s1", "s2", "s3")
ROUNDS = 16
LOADED_ROUNDS = 4
Process = Callable[[Any, dict[str, Any]], Awaitable[Any]]


@contextmanager
def two_servers(*arguments: str) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica."""
    with RedisServer(*arguments) as primary, RedisServer(*arguments) as replica:
        follow(replica, primary)
        yield primary, replica


@asynccontextmanager
async def store_at(url: str, retry_for: float) -> AsyncIterator[PersistentRedisKVS]:
    """A store that is the one of the reducers as well."""
    where = RedisSettings(url=url, retry_for=retry_for)
    async with PersistentRedisKVS(connection=where) as store:
        KVS.add_item("default", store)
        yield store


async def events(process: Process, count: int) -> Any:
    """So many events, one after another; what the last one came to."""
    for _ in range(count):
        shown = await process("event", {})
    return shown


async def eventually(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def assert_told_within_the_deadline(call: Awaitable[Any], word: str) -> float:
    """`call` is tried until its deadline, and ends with `Unavailable`, which names the cause."""
    start = time.monotonic()
    with pytest.raises(Unavailable, match=word):
        await call
    took = time.monotonic() - start
    assert RETRY_S - 0.6 <= took <= RETRY_S + late(0.5)
    return took


def test_primary_that_became_a_replica(tally: Tally) -> None:
    refused = 0

    async def run(old: RedisServer, new: RedisServer) -> None:
        nonlocal refused
        patient = RedisSettings(url=old.url, retry_for=60)
        async with (
            store_at(old.url, RETRY_S) as store,
            PersistentRedisKVS(connection=patient) as waiting,
        ):
            process = await fault_count(metadata_of("s1"))
            assert await events(process, 5) == 5
            await store.set("key", "old")
            await waiting.update("counter", one_more)
            for round_ in range(2):
                await asyncio.to_thread(wait_until_replicated, old, new)
                await asyncio.to_thread(promote, new)
                await asyncio.to_thread(follow, old, new)
                # Every kind of write, on connections that were there before.
                for call in (
                    partial(store.set, "key", "refused"),
                    partial(store.update, "counter", one_more),
                    partial(store.remove, "key"),
                    partial(process, "event", {}),
                )[2 * round_ :]:
                    await assert_told_within_the_deadline(call(), "(?i)read.?only")
                    refused += 1
                assert await store["key"] == "old"  # what is there can be read
                on_their_way = [
                    asyncio.create_task(waiting.update("counter", one_more)) for _ in range(20)
                ]
                await asyncio.sleep(0.2)
                assert not any(task.done() for task in on_their_way)
                await asyncio.to_thread(promote, old)
                await asyncio.gather(*on_their_way)
                refused += len(on_their_way)
                assert await store["counter"] == 1 + 20 * (round_ + 1)
                assert await events(process, 3) == 5 + 3 * (round_ + 1)
                await asyncio.to_thread(follow, new, old)

    with two_servers() as (old, new):
        asyncio.run(run(old, new))
        assert student_counts(old.url, "s1") == (11, 11)
    tally(
        "T9", refused, "READONLY: Unavailable at the deadline, or done once it is a primary again"
    )


def test_partitioned_primary_with_min_replicas(tally: Tally) -> None:
    async def run(primary: RedisServer, replica: RedisServer) -> None:
        async with store_at(primary.url, RETRY_S) as store:
            process = await fault_count(metadata_of("s1"))
            await store.set("key", "before")
            assert await events(process, 3) == 3
            with cut_off(replica):
                await eventually(lambda: replication(primary)["connected_slaves"] == "0")
                for call in (
                    partial(store.set, "key", "refused"),
                    partial(store.update, "counter", one_more),
                    partial(process, "event", {}),
                ):
                    await assert_told_within_the_deadline(call(), "NOREPLICAS")
                assert stored_counts(primary.url, [key_of("s1"), "counter"]) == {
                    key_of("s1"): 3,
                    "counter": 0,
                }
                assert await store["key"] == "before"
            await asyncio.to_thread(follow, replica, primary)
            assert await store.update("counter", one_more) == 1
            assert await events(process, 2) == 5

    with two_servers("--min-replicas-to-write", "1", "--min-replicas-max-lag", "2") as servers:
        asyncio.run(run(*servers))
    tally("T9", 3, "NOREPLICAS: Unavailable at the deadline, nothing written")


def test_what_the_old_primary_took_alone_is_lost_and_nothing_revives_it(tally: Tally) -> None:
    """Acknowledged by a primary that was cut off: gone. The rest counts, and once."""
    alone, elsewhere, afterwards = 7, 2, 4

    async def run(old: RedisServer, new: RedisServer, proxy: FaultProxy) -> None:
        async with store_at(proxy.url, 30.0) as store:
            processes = [await fault_count(metadata_of(student)) for student in STUDENTS]
            for process in processes:
                assert await events(process, 5) == 5
            wait_until_replicated(old, new)
            with cut_off(new):
                # This process now holds states, and their bytes, that the new primary never had.
                for process in processes:
                    assert await events(process, alone) == 5 + alone
                assert student_counts(old.url, "s1") == (5 + alone, 5 + alone)
                promote(new)
            # Another process counts on the new primary meanwhile, for the first student only.
            with redis.Redis.from_url(new.url) as other:
                other.set(key_of("s1"), json.dumps({"count": 5 + elsewhere}))
            assert student_counts(new.url, "s2") == (5, 5)  # acknowledged, and lost
            proxy.upstream = ("127.0.0.1", new.port)
            old.kill()
            for process, student in zip(processes, STUDENTS, strict=True):
                expected = 5 + afterwards + (elsewhere if student == "s1" else 0)
                assert await events(process, afterwards) == expected
                assert student_counts(new.url, student) == (expected, expected)
            # A reducer's read of the store tells the same.
            assert (
                await store.multiget([key_of(s) for s in STUDENTS[1:]])
                == [{"count": 5 + afterwards}] * 2
            )

    with (
        two_servers() as (old, new),
        FaultProxy("127.0.0.1", old.port).run_in_thread() as proxy,
    ):
        asyncio.run(run(old, new, proxy))
    tally(
        "T9",
        len(STUDENTS),
        f"{alone * len(STUDENTS)} events of a cut-off primary lost, as reported; none revived",
    )


def is_commit(request: bytes) -> bool:
    return commit_script.COMMIT.digest.encode() in request


class Failover:
    """A call whose reply is lost with the primary, so that the new primary gets it again."""

    def __init__(self, *arguments: str, replicated: bool = True) -> None:
        self.replicated = replicated
        self.primary = RedisServer(*arguments)
        self.replica = RedisServer(*arguments)

    def __enter__(self) -> Self:
        self._exit = ExitStack()
        self._exit.enter_context(self.primary)
        self._exit.enter_context(self.replica)
        follow(self.replica, self.primary)
        proxy = FaultProxy("127.0.0.1", self.primary.port, only=is_commit)
        self.proxy = self._exit.enter_context(proxy.run_in_thread())
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    async def during(self, start: Callable[[], Awaitable[Any]], key: str) -> Any:
        """What a call comes to that the primary carried out, and answered to nobody."""
        with ExitStack() as cut:
            if not self.replicated:
                cut.enter_context(cut_off(self.replica))
            before = self._bytes(self.primary, key)
            # Until the new primary is there, whoever connects finds nobody.
            nobody = cut.enter_context(socket.socket())
            nobody.bind(("127.0.0.1", 0))
            self.proxy.upstream = ("127.0.0.1", nobody.getsockname()[1])
            self.proxy.inject(Fault.SWALLOW_CLOSE)
            call = asyncio.ensure_future(start())
            await eventually(lambda: self._bytes(self.primary, key) != before)
            if self.replicated:
                wait_until_replicated(self.primary, self.replica)
            assert (self._bytes(self.replica, key) != before) is self.replicated
            assert not call.done()
            self.kill_and_promote()
        answer = await call
        self.bring_back()
        return answer

    def kill_and_promote(self) -> None:
        """From now on clients are led to what was the replica."""
        self.primary.kill()
        promote(self.replica)
        self.primary, self.replica = self.replica, self.primary
        self.proxy.upstream = ("127.0.0.1", self.primary.port)

    def bring_back(self) -> None:
        """The old primary is a replica from now on."""
        self.replica.start()
        follow(self.replica, self.primary)

    def _bytes(self, server: RedisServer, key: str) -> object:
        with redis.Redis.from_url(server.url) as client:
            return client.get(key)


@pytest.mark.parametrize("replicated", [True, False], ids=["replicated", "not-replicated"])
def test_call_retried_after_the_failover(replicated: bool, tally: Tally) -> None:
    async def run(failover: Failover) -> None:
        async with store_at(failover.proxy.url, 60.0) as store:
            process = await fault_count(metadata_of("s1"))
            await events(process, 1)
            await store.update("counter", one_more)
            for round_ in range(ROUNDS):
                wait_until_replicated(failover.primary, failover.replica)
                done = 1 + round_
                if round_ % 2:
                    shown = await failover.during(partial(process, "event", {}), key_of("s1"))
                    await store.update("counter", one_more)
                else:
                    shown = await failover.during(
                        partial(store.update, "counter", one_more), "counter"
                    )
                    await events(process, 1)
                assert shown == done + 1
                assert student_counts(failover.primary.url, "s1") == (done + 1, done + 1)
                assert stored_counts(failover.primary.url, ["counter"]) == {"counter": done + 1}

    start = time.monotonic()
    with Failover(replicated=replicated) as failover:
        asyncio.run(run(failover))
    tell(f"{ROUNDS} failovers in {time.monotonic() - start:.1f} s")
    which = "replicated" if replicated else "not replicated"
    tally("T9", ROUNDS, f"{which} and sent again to the promoted one: in it once")


def test_failovers_under_load_lose_only_what_was_not_replicated(seed: int, tally: Tally) -> None:
    """The primary is killed while three processes count, at any point of what it replicates."""
    drawn = random.Random(seed)
    keys = [*COUNTERS, *(key_of(student) for student in COUNTED)]
    not_replicated: Counter[str] = Counter()
    # With a file, so that the old primary tells afterwards how far it had come.
    with Failover("--appendonly", "yes") as failover:
        workers = [Worker("count", failover.proxy.url) for _ in range(3)]
        with released(workers):
            for _ in range(LOADED_ROUNDS):
                time.sleep(drawn.uniform(0.3, 0.5))
                failover.primary.kill()
                promote(failover.replica)  # and nobody is led there yet
                promoted = stored_counts(failover.replica.url, keys)
                for student in COUNTED:
                    internal, external = student_counts(failover.replica.url, student)
                    assert internal == external > 0
                failover.kill_and_promote()
                failover.replica.start()
                left = stored_counts(failover.replica.url, keys)
                not_replicated.update({key: left[key] - promoted[key] for key in keys})
                failover.bring_back()
            time.sleep(0.3)
            for worker in workers:
                worker.stop()
            acknowledged, errors = totals([worker.report() for worker in workers])
        stored = stored_counts(failover.primary.url, keys)
        halves = [student_counts(failover.primary.url, student) for student in COUNTED]
    lost = {key: acknowledged[key] - stored[key] for key in keys}
    tell(
        f"seed {seed}: acknowledged {dict(acknowledged)}, not replicated {dict(not_replicated)}, "
        f"lost {lost}, errors {dict(errors)}"
    )
    assert errors == {}
    for key in keys:  # nothing is in it twice; what was replicated, or sent again, is in it
        assert 0 <= lost[key] <= not_replicated[key], key
    assert all(internal == external for internal, external in halves)
    tally(
        "T9",
        LOADED_ROUNDS,
        f"under load: {sum(lost.values())} of {acknowledged.total():,} lost, of "
        f"{not_replicated.total()} not replicated; none torn (seed {seed})",
    )
