"""Callers that are cancelled at every moment of a call: nobody else notices, nothing doubles."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import redis
from tests.faults.tally import Tally
from tests.faults.workers import tell

from lo_kvs.kvs import KVS, PersistentRedisKVS, Store
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.fields import KeyField, KeyStateType
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.stream_analytics.keys import make_key
from lo_kvs.stream_analytics.pipeline import Pipeline
from lo_kvs.testing.servers.server import RedisServer

T = TypeVar("T")

NEIGHBOURS = 4
WAIT_MAX_S = 20.0
#: A test takes some seconds. Where a reply never comes, it fails after these, and does not hang.
STUCK_S = 90.0
#: A call takes some ten steps of the event loop; who is at work in each of them differs.
STEPS_MAX = 2_000
ROUNDS = 6
BATCH = 5


@student_event_reducer(null_state={"n": 0}, module_override="tests", qualname_override="marked")
async def marked(event: Any, state: Any) -> tuple[Any, Any]:
    """Count, beside the student's name: a state that was mixed up with another's shows it."""
    return _counted(event, state)


@student_event_reducer(null_state={"n": 0}, module_override="tests", qualname_override="slowly")
async def marked_slowly(event: Any, state: Any) -> tuple[Any, Any]:
    """The same in a task of the engine's, as it awaits."""
    await asyncio.sleep(0)
    return _counted(event, state)


def _counted(event: Any, state: Any) -> tuple[Any, Any]:
    student = event["client"]["student"]
    check(student, state)
    state = {"of": student, "n": state["n"] + 1}
    return state, state


PIPELINE = Pipeline(
    [{"context": "test", "function": marked}, {"context": "test", "function": marked_slowly}]
)


def check(key: str, value: Any) -> int:
    """How often `key` has counted; fails where the value is another key's."""
    if value is None:
        return 0
    assert value.get("of", key) == key, f"{value} under {key}"
    return int(value["n"])


def one_more(key: str) -> Callable[[Any], Any]:
    return lambda value: {"of": key, "n": check(key, value) + 1}


def as_it_is(key: str) -> Callable[[Any], Any]:
    return lambda value: {"of": key, "n": check(key, value)}


def event_of(student: str) -> dict[str, Any]:
    return {
        "client": {"event": "x", "student": student},
        "metadata": {"source": "test", "auth": {"safe_user_id": student}},
    }


async def count_in_state(store: Store, reducer: str, student: str) -> int:
    """How often the student's state has counted, which its two halves agree on."""
    keys = [
        make_key(f"tests.{reducer}", {KeyField.STUDENT: student}, kind) for kind in KeyStateType
    ]
    counts = [check(student, value) for value in await store.multiget(keys)]
    assert len({*counts}) == 1, f"{student}: {counts}, of one event half was written"
    return counts[0]


class Case:
    """A call that counts once on a key of its own, and how to tell what it came to."""

    events = 1

    async def call(self, store: Store, key: str) -> None:
        raise NotImplementedError

    async def counts(self, store: Store, key: str) -> list[int]:
        """How many of its events were applied, once it is over whatever was under way."""
        return [check(key, await store.update(key, as_it_is(key)))]


class Update(Case):
    async def call(self, store: Store, key: str) -> None:
        assert check(key, await store.update(key, one_more(key))) == 1


class Set(Case):
    async def call(self, store: Store, key: str) -> None:
        await store.set(key, {"of": key, "n": 1})


class Get(Case):
    events = 0

    async def call(self, store: Store, key: str) -> None:
        assert await store.get(key) is None


class Process(Case):
    name, reducer = "marked", staticmethod(marked)

    async def call(self, store: Store, key: str) -> None:
        assert await self._process(key) == 1

    async def counts(self, store: Store, key: str) -> list[int]:
        # An event that comes later is reduced later, whatever became of those before it.
        count = await self._process(key)
        assert await count_in_state(store, self.name, key) == count
        return [count - 1]

    async def _process(self, key: str) -> int:
        process = await self.reducer(event_of(key)["metadata"])
        return check(key, await process(event_of(key)))


class ProcessSlowly(Process):
    name, reducer = "slowly", staticmethod(marked_slowly)


class ProcessInPipeline(Case):
    async def call(self, store: Store, key: str) -> None:
        assert await PIPELINE.process(event_of(key)) == 2

    async def counts(self, store: Store, key: str) -> list[int]:
        assert await PIPELINE.process(event_of(key)) == 2
        return [await count_in_state(store, name, key) - 1 for name in ("marked", "slowly")]


class ProcessBatch(ProcessInPipeline):
    events = BATCH

    async def call(self, store: Store, key: str) -> None:
        assert await PIPELINE.process_batch([event_of(key)] * BATCH) == [None] * BATCH


CASES = [Update(), Set(), Get(), Process(), ProcessSlowly(), ProcessInPipeline(), ProcessBatch()]


class Neighbours:
    """Tasks that work on the same store all the while, and look at every reply."""

    def __init__(self, store: Store, name: str) -> None:
        self.replies = 0
        self._store = store
        self._name = name
        self._done = False

    async def _work(self, number: int) -> None:
        key = f"neighbour {number} of {self._name}"
        process = await (marked if number % 2 else marked_slowly)(event_of(key)["metadata"])
        for count in itertools.count(1):
            if self._done:
                return
            assert check(key, await self._store.update(key, one_more(key))) == count
            assert check(key, await self._store.get(key)) == count
            assert check(key, await process(event_of(key))) == count
            self.replies += 3

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for number in range(NEIGHBOURS):
                group.create_task(self._work(number))
            yield
            self._done = True


async def not_stuck(test: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(STUCK_S):
        return await test


def clients(raw: redis.Redis) -> set[str]:
    """The server's connections, by id, but for this one."""
    return {each["id"] for each in raw.client_list()} - {str(raw.client_id())}


@asynccontextmanager
async def store_in_use(url: str) -> AsyncIterator[Store]:
    where = RedisSettings(url=url, timeout=WAIT_MAX_S, retry_for=WAIT_MAX_S)
    async with PersistentRedisKVS(connection=where) as store:
        KVS.add_item("default", store)
        # Both writers and the reader open their connections, and the server learns the scripts.
        await asyncio.gather(*(store.update(f"warm {each}", one_more("")) for each in range(8)))
        yield store


async def cancel_at_every_step(store: Store, case: Case, name: str) -> Counter[str]:
    """Cancel the call after one step of the loop, after two, until it is done by then."""
    came_to: Counter[str] = Counter()
    for steps in range(STEPS_MAX):
        key = f"{name}, {steps}"
        task = asyncio.create_task(case.call(store, key))
        for _ in range(steps):
            await asyncio.sleep(0)
        in_time = task.done()
        task.cancel()
        async with asyncio.timeout(WAIT_MAX_S):
            (result,) = await asyncio.gather(task, return_exceptions=True)
            counts = await case.counts(store, key)
        if in_time:
            assert result is None, result
            assert counts == [case.events] * len(counts)
            return came_to
        assert isinstance(result, asyncio.CancelledError), result
        assert all(0 <= count <= case.events for count in counts), f"{key}: {counts}"
        came_to["made" if all(counts) and case.events else "not made"] += 1
    raise AssertionError(f"not done after {STEPS_MAX} steps")


def test_cancelled_at_every_step(
    redis_server: RedisServer, redis_url: str, tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    came_to: Counter[str] = Counter()

    async def main(raw: redis.Redis) -> None:
        async with store_in_use(redis_url) as store:
            before = clients(raw)
            for case in CASES:
                name = type(case).__name__
                neighbours = Neighbours(store, name)
                found: Counter[str] = Counter()
                async with neighbours.at_work():
                    for number in range(ROUNDS):
                        found += await cancel_at_every_step(store, case, f"{name} {number}")
                tell(f"{name}: {dict(found)}, {neighbours.replies} replies to neighbours")
                assert found["not made"] >= ROUNDS
                assert found["made"] or not case.events
                assert neighbours.replies > 50
                came_to.update(found)
            # Not one connection was given up, and none was added.
            assert clients(raw) == before
            assert len(before) == 3

    start = time.monotonic()
    with redis.Redis.from_url(redis_url) as raw, caplog.at_level(logging.WARNING):
        asyncio.run(not_stuck(main(raw)))
    tell(f"{dict(came_to)}, {time.monotonic() - start:.1f} s")
    assert caplog.records == []  # no callback failed, no exception was never retrieved
    tally(
        "T8",
        came_to.total(),
        f"{came_to['made']} made all the same, none twice, no wrong reply, same connections",
    )


def test_timeouts_of_callers(
    redis_server: RedisServer, redis_url: str, seed: int, tally: Tally
) -> None:
    """`asyncio.timeout` around calls that take about as long."""
    drawn = random.Random(seed)
    rounds = 400

    async def main(raw: redis.Redis) -> tuple[int, int]:
        done: Counter[str] = Counter()
        left = 0
        async with store_in_use(redis_url) as store:
            before = clients(raw)

            async def call(count: Callable[[str], Awaitable[Any]], key: str) -> None:
                nonlocal left
                for _ in range(rounds):
                    try:
                        async with asyncio.timeout(drawn.uniform(0, 0.004)):
                            check(key, await count(key))
                    except TimeoutError:
                        left += 1
                        gone[key] += 1
                    else:
                        done[key] += 1

            async def event(key: str) -> Any:
                process = await marked(event_of(key)["metadata"])
                return await process(event_of(key))

            gone: Counter[str] = Counter()
            keys = [f"key {number}" for number in range(6)]
            neighbours = Neighbours(store, "timeouts")
            async with neighbours.at_work():
                await asyncio.gather(
                    *(call(lambda key: store.update(key, one_more(key)), key) for key in keys),
                    *(call(event, f"student {key}") for key in keys),
                )
            for key in keys:
                (stored,) = await Update().counts(store, key)
                assert done[key] <= stored <= done[key] + gone[key]
                student = f"student {key}"
                (stored,) = await Process().counts(store, student)
                assert done[student] <= stored <= done[student] + gone[student]
            assert clients(raw) == before
        return done.total(), left

    with redis.Redis.from_url(redis_url) as raw:
        done, left = asyncio.run(not_stuck(main(raw)))
    tell(f"seed {seed}: {done} done, {left} left")
    assert done > 200
    assert left > 200
    tally("T8", left, f"asyncio.timeout: {done:,} done, each event once at most (seed {seed})")


def test_event_loops_that_end_at_every_step(
    redis_server: RedisServer, redis_url: str, tally: Tally
) -> None:
    """`asyncio.run` cancels everything at its end, the tasks of ours as well."""

    async def main(case: Case, key: str, steps: int) -> bool:
        store = PersistentRedisKVS(connection=RedisSettings(url=redis_url))
        KVS.add_item("default", store)
        task = asyncio.create_task(case.call(store, key))
        for _ in range(steps):
            await asyncio.sleep(0)
        return task.done()

    async def counts(case: Case, key: str) -> list[int]:
        async with PersistentRedisKVS(connection=RedisSettings(url=redis_url)) as store:
            return await case.counts(store, key)

    tried = 0
    with redis.Redis.from_url(redis_url) as raw:
        before = clients(raw)
        for number, case in itertools.product(range(5), (Update(), ProcessInPipeline())):
            for steps in range(STEPS_MAX):
                key = f"{type(case).__name__} {number} until {steps}"
                done = asyncio.run(not_stuck(main(case, key, steps)))
                came_to = asyncio.run(not_stuck(counts(case, key)))
                assert all(count in (0, 1) for count in came_to)
                tried += 1
                if done:
                    assert came_to == [1] * len(came_to)
                    break
        gc.collect()  # a connection that was left open is a warning, and so a failure
        assert clients(raw) == before
    tally("T8", tried, "event loop ended: old or new, no connection left open")


def test_close_that_is_cancelled_at_every_step(
    redis_server: RedisServer, redis_url: str, tally: Tally
) -> None:
    """By its caller, and by the event loop that ends: all is closed all the same."""

    async def main(steps: int) -> bool:
        store = PersistentRedisKVS(connection=RedisSettings(url=redis_url))
        await asyncio.gather(*(store.set(f"key {number}", number) for number in range(20)))
        closing = asyncio.create_task(store.aclose())
        for _ in range(steps):
            await asyncio.sleep(0)
        return not closing.cancel()

    with redis.Redis.from_url(redis_url) as raw:
        before = clients(raw)
        tried = 0
        for _ in range(5):
            steps = 0
            while not asyncio.run(not_stuck(main(steps))):
                gc.collect()  # a connection that was left open is a warning, and so a failure
                steps += 1
            tried += steps
        assert clients(raw) == before
    assert tried > 5
    tally("T8", tried, "a close that is cancelled: no connection left open")
