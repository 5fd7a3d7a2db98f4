"""P6: the cost of an event with more keys, and the memory of this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from typing import Any

from benchmarks.keys_setting import (
    ACTIVE,
    EXTERNAL,
    KEY,
    KEYS,
    NULL,
    QUICK_KEYS,
    REDUCER,
    Database,
    event_for,
    filled,
    key_for,
    round_of,
    students_of,
)
from benchmarks.rows_bytes import over_bytes
from benchmarks.setting import Setting, check_count
from benchmarks.work import (
    declared,
    text_size,
)
from lo_kvs.kvs import codec
from lo_kvs.measure.machine import resident_bytes
from lo_kvs.measure.report import (
    Chart,
    Line,
    Result,
    Target,
    compare,
)
from lo_kvs.measure.timing import Contestant, Run, interleaved, middle
from lo_kvs.stream_analytics.engine import engine
from lo_kvs.stream_analytics.limits import Limits
from lo_kvs.stream_analytics.pipeline import Pipeline


async def p6(setting: Setting) -> Result:
    """Flat in keys, memory bounded, and in bytes not much over a SET of them."""
    # A million keys leave a server's memory in pieces, also when they are gone.
    async with setting.on_own_server() as own:
        result = await _over_keys(own)
    larger = await over_bytes(setting)
    result.lines += larger.lines
    result.charts += larger.charts
    result.sizes |= larger.sizes
    return result


async def _over_keys(setting: Setting) -> Result:
    counts = QUICK_KEYS if setting.quick else KEYS
    await setting.fresh()
    result = Result(sizes={"over keys": text_size(NULL)})
    curves: dict[str, list[tuple[float, float]]] = {}
    async with contextlib.AsyncExitStack() as opened:
        databases = [
            await opened.enter_async_context(filled(setting, number, count))
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


def _processing(name: str, setting: Setting, database: Database, cache_bytes: int) -> Contestant:
    """Events of as many students as there are, or of the active ones, spread over the keys.

    With a cache of no bytes every event's state is read first. The students of one group are
    different ones, so that every event is a commit.
    """
    pipeline = Pipeline(declared(REDUCER))
    students = students_of(database, cache_bytes)
    touched: set[int] = set()
    length, size = round_of(setting, database)
    running: engine.Engine | None = None

    async def run() -> Run:
        nonlocal running
        if running is None:
            running = engine.Engine(database.store, Limits(cache_bytes=cache_bytes))
        chosen = list(itertools.islice(students, length))
        touched.update(chosen)
        runs = [(*pipeline.plan(event)[0], event) for event in map(event_for, chosen)]
        began = time.perf_counter()
        for start in range(0, length, size):
            part = runs[start : start + size]
            await asyncio.gather(*(running.process(*one) for one in part))
        return Run(length, time.perf_counter() - began)

    async def check(sent: int) -> None:
        await check_count(name, database.client, map(key_for, touched), sent)
        # What this contestant counted must not be counted for the next one on the database.
        async with database.client.pipeline(transaction=False) as pipe:
            for student in touched:
                pipe.set(key_for(student), codec.encode(NULL))
            await pipe.execute()

    return Contestant(name, run, check)


def _plainly(name: str, setting: Setting, database: Database, cache_bytes: int) -> Contestant:
    """Read and write both halves of as many states, and nothing more: what Redis itself takes.

    The seconds of a run are those that the server was at work.
    """
    students = students_of(database, cache_bytes)
    length, size = round_of(setting, database)
    client = database.client

    async def at_work_s() -> float:
        info: dict[str, Any] = await client.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    async def run() -> Run:
        began = await at_work_s()
        for _ in range(0, length, size):
            part = list(itertools.islice(students, size))
            keys = [f"{half}{student}" for half in (KEY, EXTERNAL) for student in part]
            texts: Any = await client.mget(keys)
            await client.mset(dict(zip(keys, texts, strict=True)))
        return Run(length, await at_work_s() - began)

    return Contestant(name, run)


async def _memory(database: Database) -> Line:
    """How much this process grows while it works on ever more states, by the cache's bound."""
    pipeline = Pipeline(declared(REDUCER))
    before = resident_bytes()
    students = range(min(database.keys, 150_000))
    for start in range(0, len(students), 2000):
        part = students[start : start + 2000]
        for error in await pipeline.process_batch(list(map(event_for, part)), store=database.store):
            if error is not None:
                raise error
    after = resident_bytes()
    await check_count("memory", database.client, map(key_for, students), len(students))
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
