"""P6: what an event costs when there are more keys, and what this process holds in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from benchmarks.rows_bytes import over_bytes
from benchmarks.setting import Setting, check_count
from benchmarks.work import (
    counting,
    declared,
    event_of,
    flat_state,
    keys_of,
    text_size,
)
from learning_observer.kvs import Store, codec
from learning_observer.measure.machine import resident_bytes
from learning_observer.measure.report import (
    Chart,
    Line,
    Result,
    Target,
    compare,
)
from learning_observer.measure.timing import Contestant, Run, interleaved, middle
from learning_observer.stream_analytics import engine
from learning_observer.stream_analytics.limits import Limits
from learning_observer.stream_analytics.pipeline import Pipeline

#: Keys of the stores that are compared, each in a database of its own of one server.
KEYS: Final = (1_000, 10_000, 100_000, 1_000_000)
QUICK_KEYS: Final = (100, 1_000)
KEY_STATE_BYTES: Final = 100
ACTIVE: Final = 1_000  # students who are writing now, whatever the store holds besides
GROUP: Final = 500
ROUND_EVENTS: Final = 30_000
NULL: Final = flat_state(KEY_STATE_BYTES)
REDUCER: Final = counting(NULL, "of_many_keys")
KEY, EXTERNAL = keys_of(REDUCER, "many-")  # a student's number follows


async def p6(setting: Setting) -> Result:
    """Flat in keys, memory bounded, and in bytes not much over a SET of them."""
    result = await _over_keys(setting)
    larger = await over_bytes(setting)
    result.lines += larger.lines
    result.charts += larger.charts
    result.sizes |= larger.sizes
    return result


class Database(NamedTuple):
    """A database with so many states, and the store on it."""

    keys: int
    client: Redis
    store: Store


async def _over_keys(setting: Setting) -> Result:
    counts = QUICK_KEYS if setting.quick else KEYS
    await setting.fresh()
    result = Result(sizes={"over keys": text_size(NULL)})
    curves: dict[str, list[tuple[float, float]]] = {}
    async with contextlib.AsyncExitStack() as opened:
        databases = [
            await opened.enter_async_context(_filled(setting, number, count))
            for number, count in enumerate(counts)
        ]
        for kind, cache_bytes in (("active", Limits().cache_bytes), ("cold", 0)):
            contestants = [
                _processing(f"{kind}, {database.keys:,} keys", setting, database, cache_bytes)
                for database in databases
            ]
            runs = await interleaved(contestants, setting.rounds)
            work = {
                "active": f"{min(ACTIVE, counts[0]):,} active states among {counts[-1]:,} keys",
                "cold": f"states not in the process, {counts[-1]:,} keys",
            }[kind]
            first, last = contestants[0].name, contestants[-1].name
            flat = Target("at most", 1.2)
            result.lines.append(
                compare("P6", work, runs, last, first, of=event_us, unit="us", target=flat)
            )
            bare = [
                _plainly(f"{kind}, plain, {database.keys:,} keys", setting, database, cache_bytes)
                for database in (databases[0], databases[-1])
            ]
            plain = await interleaved(bare, min(3, setting.rounds))
            work = "the same keys by MGET and MSET, CPU time of Redis alone"
            names = [contestant.name for contestant in bare]
            result.lines.append(
                compare("P6", work, plain, names[-1], names[0], of=event_us, unit="us")
            )
            curves[kind] = [
                (database.keys, middle([event_us(run) for run in runs[contestant.name]]).median)
                for database, contestant in zip(databases, contestants, strict=True)
            ]
        result.lines.append(await _memory(databases[-1]))
    chart = Chart("cost-over-keys", "Cost of an event", "keys", "us/event", curves, log_y=False)
    result.charts.append(chart)
    return result


@contextlib.asynccontextmanager
async def _filled(setting: Setting, number: int, count: int) -> AsyncIterator[Database]:
    """Database `number` of the server, with `count` states, both halves of each."""
    text, shown = codec.encode(NULL), codec.encode({"count": 0, "last_time": None})
    async with (
        Redis.from_url(setting.url(number)) as client,
        setting.store_type(connection=setting.where(number)) as store,
    ):
        for start in range(0, count, 10_000):
            async with client.pipeline(transaction=False) as pipe:
                for first in range(start, min(start + 10_000, count), 1000):
                    students = range(first, min(first + 1000, count))
                    pipe.mset({_key(student): text for student in students})
                    # Else each event on a state makes a key, but for the few of a small store.
                    pipe.mset({f"{EXTERNAL}{student}": shown for student in students})
                await pipe.execute()
        yield Database(count, client, store)


def _processing(name: str, setting: Setting, database: Database, cache_bytes: int) -> Contestant:
    """Events of as many students as there are, or of the active ones, spread over the keys.

    With a cache of no bytes every event's state is read first. The students of one group are
    different ones, so that every event is a commit.
    """
    pipeline = Pipeline(declared(REDUCER))
    students = _students(database, cache_bytes)
    touched: set[int] = set()
    length, size = _round(setting, database)
    running: engine.Engine | None = None

    async def run() -> Run:
        nonlocal running
        if running is None:
            running = engine.Engine(database.store, Limits(cache_bytes=cache_bytes))
        chosen = list(itertools.islice(students, length))
        touched.update(chosen)
        runs = [(*pipeline.plan(event)[0], event) for event in map(_event, chosen)]
        began = time.perf_counter()
        for start in range(0, length, size):
            part = runs[start : start + size]
            await asyncio.gather(*(running.process(*one) for one in part))
        return Run(length, time.perf_counter() - began)

    async def check(sent: int) -> None:
        await check_count(name, database.client, map(_key, touched), sent)
        # What this contestant counted must not be counted for the next one on the database.
        async with database.client.pipeline(transaction=False) as pipe:
            for student in touched:
                pipe.set(_key(student), codec.encode(NULL))
            await pipe.execute()

    return Contestant(name, run, check)


def _plainly(name: str, setting: Setting, database: Database, cache_bytes: int) -> Contestant:
    """Read and write both halves of as many states, and nothing more: what Redis itself takes.

    The seconds of a run are those that the server was at work.
    """
    students = _students(database, cache_bytes)
    length, size = _round(setting, database)
    client = database.client

    async def at_work_s() -> float:
        told: dict[str, Any] = await client.info("cpu")
        return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])

    async def run() -> Run:
        began = await at_work_s()
        for _ in range(0, length, size):
            part = list(itertools.islice(students, size))
            keys = [f"{half}{student}" for half in (KEY, EXTERNAL) for student in part]
            texts: Any = await client.mget(keys)
            await client.mset(dict(zip(keys, texts, strict=True)))
        return Run(length, await at_work_s() - began)

    return Contestant(name, run)


def _round(setting: Setting, database: Database) -> tuple[int, int]:
    """How many events a round has, and how many of them are under way at a time."""
    length = 500 if setting.quick else ROUND_EVENTS
    return length, min(GROUP, ACTIVE, database.keys)


def _students(database: Database, cache_bytes: int) -> Iterator[int]:
    """Those who write, over and over: all there are, or the active ones, spread over the keys."""
    active = min(ACTIVE, database.keys) if cache_bytes else database.keys
    return itertools.cycle(range(0, database.keys, database.keys // active))


async def _memory(database: Database) -> Line:
    """How much this process grows while it works on ever more states, by the cache's bound."""
    pipeline = Pipeline(declared(REDUCER))
    before = resident_bytes()
    students = range(min(database.keys, 150_000))
    for start in range(0, len(students), 2000):
        part = students[start : start + 2000]
        for error in await pipeline.process_batch(list(map(_event, part)), store=database.store):
            if error is not None:
                raise error
    after = resident_bytes()
    await check_count("memory", database.client, map(_key, students), len(students))
    bound = Limits().cache_bytes
    grown = 0 if before is None or after is None else max(0, after - before)
    return Line(
        "P6",
        f"memory after {len(students):,} states more",
        "MB",
        middle([grown / 1e6]),
        "the cache's bound",
        middle([bound / 1e6]),
        middle([grown / bound]),
        None if before is None else Target("at most", 1.0),
        "" if before is not None else "this system does not tell it",
    )


def event_us(run: Run) -> float:
    """Microseconds an event."""
    return run.event_us


def _event(student: int) -> dict[str, Any]:
    return event_of(f"many-{student}")


def _key(student: int) -> str:
    return f"{KEY}{student}"
