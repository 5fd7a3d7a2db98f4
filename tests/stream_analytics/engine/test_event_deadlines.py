"""Events have one deadline from when they are submitted, for everything they wait for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.busy import late
from tests.kvs.batching.test_deadlines_shared import (
    PATIENT,
    is_commit,
    late_reads_and_lost_commits,
    took,
)
from tests.kvs.batching.test_errors_deadlines import GRACE, Results, times_of
from tests.kvs.redis_places import settings_for
from tests.stream_analytics.support import key_of, process_of

from lo_kvs.kvs import (
    KVS,
    Change,
    InMemoryKVS,
    KVSError,
    Outcome,
    OutcomeUnknown,
    PersistentRedisKVS,
    Store,
    Unavailable,
)
from lo_kvs.kvs.backend import Submit
from lo_kvs.stream_analytics.engine.engine import engine_for
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.stream_analytics.pipeline import Pipeline
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer


@student_event_reducer(null_state={"count": 0})
async def count(event: Any, state: Any) -> Any:
    state["count"] += 1
    return state, state["count"]


@student_event_reducer(null_state={"count": 0})
async def count_in_a_task(event: Any, state: Any) -> Any:
    await asyncio.sleep(0)
    state["count"] += 1
    return state, state["count"]


EVENT = {
    "client": {"event": "x"},
    "metadata": {"source": "test", "auth": {"safe_user_id": "s1"}},
}


async def as_events(reducer: Any, store: Store) -> Callable[[int], Awaitable[object]]:
    process = await process_of(reducer)
    return lambda _: process("event", {})


async def as_batches(reducer: Any, store: Store) -> Callable[[int], Awaitable[object]]:
    pipeline = Pipeline([{"context": "test", "function": reducer}])

    async def one_batch(_: int) -> None:
        (error,) = await pipeline.process_batch([EVENT], store=store)
        if error is not None:
            raise error

    return one_batch


def test_reading_a_state_and_writing_it_share_a_deadline(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with late_reads_and_lost_commits(redis_server) as port:
            where = settings_for(port, retry_for=PATIENT, timeout=5)
            async with PersistentRedisKVS(connection=where) as store:
                KVS.add_item("default", store)
                process = await process_of(count)
                seconds, error = await took(process("event", {}))
        assert isinstance(error, OutcomeUnknown)
        assert PATIENT - 0.1 < seconds < PATIENT + late(GRACE)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("how", "reducer", "silent", "timeout"),
    [
        pytest.param(as_events, count, "all", 0.3, id="all silent, many tries"),
        pytest.param(as_events, count, "all", 5.0, id="all silent, one try"),
        pytest.param(as_events, count, "commits", 5.0, id="commits silent"),
        pytest.param(as_events, count_in_a_task, "commits", 0.3, id="in a task"),
        pytest.param(as_batches, count, "commits", 0.3, id="batches"),
    ],
)
def test_each_event_of_one_state_fails_by_its_deadline(
    redis_server: RedisServer, how: Any, reducer: Any, silent: str, timeout: float
) -> None:
    """They are submitted while the store is unavailable, and wait for each other."""
    lost = is_commit if silent == "commits" else None

    async def main() -> None:
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults={Fault.SWALLOW_STALL: 1.0}, only=lost
        ) as proxy:
            proxy.faults_on = False
            where = settings_for(proxy.port, retry_for=PATIENT, timeout=timeout)
            async with PersistentRedisKVS(connection=where) as store:
                KVS.add_item("default", store)
                call = await how(reducer, store)
                await call(0)
                before = await counted(store)
                proxy.faults_on = True
                results = await times_of(call, calls=60, every=0.06)
                proxy.faults_on = False
                check(results)
                # Of what is Unavailable nothing was sent.
                unknown = sum(error is OutcomeUnknown for _, error in results)
                assert before <= await counted(store) <= before + unknown
                before = await counted(store)
                await call(0)
                assert await counted(store) == before + 1

    async def counted(store: Store) -> int:
        state: Any = await store[key_of(reducer)]
        found: int = state["count"]
        return found

    def check(results: Results) -> None:
        assert len(results) == 60
        for seconds, error in results:
            assert issubclass(error, Unavailable | OutcomeUnknown)
            assert PATIENT / 2 < seconds < PATIENT + late(GRACE)

    asyncio.run(main())


def test_events_that_only_wait_for_a_reducer_have_no_deadline(redis_server: RedisServer) -> None:
    """A slow reducer delays the queued events for longer than the store's deadline."""

    @student_event_reducer(null_state={"count": 0})
    async def slow(event: Any, state: Any) -> Any:
        await asyncio.sleep(0.1)
        state["count"] += 1
        return state, state["count"]

    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=0.5)
        async with PersistentRedisKVS(connection=where) as store:
            KVS.add_item("default", store)
            process = await process_of(slow)
            start = time.monotonic()
            answers = await asyncio.gather(*(process("event", {}) for _ in range(12)))
            assert time.monotonic() - start > 1
            assert answers == list(range(1, 13))

    asyncio.run(main())


def test_queued_events_fail_when_an_unavailable_store_is_closed(
    redis_server: RedisServer,
) -> None:
    async def main() -> None:
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults={Fault.SWALLOW_STALL: 1.0}, only=is_commit
        ) as proxy:
            proxy.faults_on = False
            where = settings_for(proxy.port, retry_for=1.0, timeout=0.2)
            store = PersistentRedisKVS(connection=where)
            KVS.add_item("default", store)
            process = await process_of(count)
            await process("event", {})
            proxy.faults_on = True
            events = [asyncio.create_task(process("event", {})) for _ in range(3)]
            await asyncio.sleep(0.3)
            events += [asyncio.create_task(process("event", {})) for _ in range(3)]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(5):
                await store.aclose()
                results = await asyncio.gather(*events, return_exceptions=True)
            assert all(isinstance(each, KVSError) for each in results), results

    asyncio.run(main())


class Contested(InMemoryKVS):
    """A store that was unavailable, and in which other writers win this many races."""

    def __init__(self, conflicts: int) -> None:
        super().__init__()
        self.conflicts = conflicts
        self.failed = 0
        self.deadlines: list[float | None] = []

    def try_for_s(self) -> float:
        return 10.0

    def failed_attempts(self) -> int:
        return self.failed

    def submitter_for(self, guard: str) -> Submit:
        submit = super().submitter_for(guard)

        def contested(
            change: Change, done: Callable[[Outcome], object], deadline: float | None = None
        ) -> None:
            self.deadlines.append(deadline)
            if self.conflicts:
                self.conflicts -= 1
                self._texts[guard] = b'{"count":%d}' % (100 * self.conflicts)
            submit(change, done)

        return contested


def test_a_prompt_conflict_restarts_the_deadline() -> None:
    """With their old deadlines, events are sent in small groups, and lose every race."""

    async def main() -> None:
        store = Contested(conflicts=5)
        KVS.add_item("default", store)
        process = await process_of(count)
        sending = asyncio.create_task(process("event", {}))
        await asyncio.sleep(0)
        engine_for(store).deadlines.mark_unavailable()
        assert await sending == 1
        assert store.deadlines[0] is not None
        assert store.deadlines[1:] == [None] * 5

    asyncio.run(main())


def test_a_conflict_after_failed_attempts_does_not_restart_the_deadline() -> None:
    async def main() -> None:
        store = Contested(conflicts=2)
        KVS.add_item("default", store)
        process = await process_of(count)
        sending = asyncio.create_task(process("event", {}))
        await asyncio.sleep(0)
        clock = engine_for(store).deadlines
        clock.mark_unavailable()
        before = clock.attempt()
        assert clock.is_prompt(before)
        store.failed += 1
        assert not clock.is_prompt(before)
        assert await sending == 1

    asyncio.run(main())
