"""C2, C3 and C5: the work of P2, P3 and P5 on three nodes, compared with one server.

No target: the ratio is the cost of a cluster on these cores, which all its nodes share with the
client. A cluster pays off with more cores, which is not measured here.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final, TypeAlias

from benchmarks.cluster_setting import ClusterSetting
from benchmarks.loop_process import STATE_BYTES
from benchmarks.rows_contended import SESSIONS as CONTENDED_SESSIONS
from benchmarks.rows_replay import STATE_BYTES as REPLAYED_BYTES
from benchmarks.rows_replay import batches, events_of_all, replayed_students
from benchmarks.rows_sessions import latencies, ours, sizes
from benchmarks.setting import Setting, default_store
from benchmarks.work import counting, flat_state
from lo_kvs.ingest.event_log import BATCH_LINES_MAX
from lo_kvs.kvs import Store
from lo_kvs.measure.report import Chart, Line, Result, compare, latency_us
from lo_kvs.measure.timing import Contestant, Run, interleaved, middle

SINGLE: Final = "ours on one server"
CLUSTER: Final = "ours on a cluster"
#: The sessions of C2, and whether the table shows them; all of them make the curve.
SESSIONS: Final = {1: False, 8: False, 64: True, 256: False, 1000: True}
#: A place to work in, its store, and the contestant's name there.
Place: TypeAlias = tuple[str, Setting, Store]


async def c2(setting: Setting) -> Result:
    """P2 on a cluster: many sessions, each with a state of its own."""
    null = flat_state(STATE_BYTES)
    reducer = counting(null)
    result = Result(sizes=sizes(null))
    curves: dict[str, list[tuple[float, float]]] = {CLUSTER: [], SINGLE: []}
    with ClusterSetting.beside(setting) as clustered:
        for sessions, shown in SESSIONS.items():
            if setting.quick and not shown:
                continue
            async with _places(setting, clustered) as places:
                contestants = [
                    _at(place, await ours(name, where, reducer, sessions))
                    for place in places
                    for name, where, _ in [place]
                ]
                rounds = setting.rounds if shown else min(3, setting.rounds)
                runs = await interleaved(contestants, rounds)
            for name, curve in curves.items():
                curve.append((sessions, middle([run.events_s for run in runs[name]]).median))
            if shown:
                work = f"{sessions:,} sessions, 3 nodes"
                result.lines += _lines("C2", work, runs)
                name, title = f"latency-cluster-{sessions}-sessions", f"{sessions:,} sessions"
                result.charts.append(latencies(name, f"{title} on a cluster", runs))
    throughput = Chart(
        "throughput-cluster", "Throughput on a cluster", "sessions", "events/s", curves
    )
    result.charts.insert(0, throughput)
    return result


async def c3(setting: Setting) -> Result:
    """P3 on a cluster: 1,000 states of 300 bytes, events of all of them in batches."""
    null = flat_state(REPLAYED_BYTES)
    reducer = counting(null)
    students = replayed_students(setting)
    events = events_of_all(students, setting)
    with ClusterSetting.beside(setting) as clustered:
        async with _places(setting, clustered) as places:
            contestants = [
                _at(place, batches(name, where, reducer, students, events, size=BATCH_LINES_MAX))
                for place in places
                for name, where, _ in [place]
            ]
            runs = await interleaved(contestants, setting.rounds)
    work = f"batches of {BATCH_LINES_MAX}, {len(students):,} keys, 3 nodes"
    return Result([compare("C3", work, runs, CLUSTER, SINGLE)], sizes=sizes(null))


async def c5(setting: Setting) -> Result:
    """P5 on a cluster: 64 sessions that share one state, and so one node."""
    null = flat_state(STATE_BYTES)
    reducer = counting(null)
    with ClusterSetting.beside(setting) as clustered:
        async with _places(setting, clustered) as places:
            contestants = [
                _at(place, await ours(name, where, reducer, CONTENDED_SESSIONS, 1))
                for place in places
                for name, where, _ in [place]
            ]
            runs = await interleaved(contestants, setting.rounds)
    work = f"{CONTENDED_SESSIONS} sessions on one key, 3 nodes"
    return Result(_lines("C5", work, runs), sizes=sizes(null))


@contextlib.asynccontextmanager
async def _places(setting: Setting, clustered: ClusterSetting) -> AsyncIterator[list[Place]]:
    """A store in each setting, with nothing in it yet."""
    await setting.fresh()
    await clustered.fresh()
    async with setting.store() as single, clustered.store() as cluster:
        yield [(CLUSTER, clustered, cluster), (SINGLE, setting, single)]


def _at(place: Place, contestant: Contestant) -> Contestant:
    """`contestant`, with the store of its place as `KVS()` in its turns."""

    async def run() -> Run:
        with default_store(place[2]):
            return await contestant.run()

    async def check(_sent: int) -> None:
        await contestant.check()

    return Contestant(contestant.name, run, check)


def _lines(row: str, work: str, runs: dict[str, list[Run]]) -> list[Line]:
    p50, p99 = latency_us(0.5), latency_us(0.99)
    return [
        compare(row, work, runs, CLUSTER, SINGLE),
        compare(row, f"{work}, p50", runs, CLUSTER, SINGLE, of=p50, unit="us"),
        compare(row, f"{work}, p99", runs, CLUSTER, SINGLE, of=p99, unit="us"),
    ]
