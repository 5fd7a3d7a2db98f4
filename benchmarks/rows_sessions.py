"""P1 and P2: one session, and many, through the unchanged decorator."""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from benchmarks.baselines import Baseline, ReadSetSet
from benchmarks.loop_process import LOOP, STATE_BYTES, loop_process
from benchmarks.setting import Setting
from benchmarks.tape import commits
from benchmarks.work import counting, event_of, flat_state, keys_of, metadata_of, plain, text_size
from lo_kvs.measure.report import Chart, Line, Result, Target, compare, latency_us
from lo_kvs.measure.timing import (
    QUANTILES,
    Contestant,
    Miscount,
    Run,
    drive,
    interleaved,
    middle,
    timed,
)
from lo_kvs.stream_analytics.helpers import DecoratedReducer

OURS: Final = "ours"
#: The sessions of P2, with what they are to reach; the others make the curve.
SESSIONS: Final = {1: None, 8: None, 64: 25.0, 256: None, 1000: 40.0}


async def p1(setting: Setting) -> Result:
    """One session, one event after another, beside a bare EVALSHA of the same bytes."""
    await setting.fresh()
    null = flat_state(STATE_BYTES)
    reducer = counting(null)
    bare = "bare EVALSHA"
    loop = ReadSetSet(setting.client, plain(reducer), null)
    async with setting.store():
        contestants = [
            await ours(OURS, setting, reducer, 1),
            await _bare_commits(bare, setting, reducer),
            looping(LOOP, setting, loop, reducer, 1),
        ]
        runs = await interleaved(contestants, setting.rounds)
    p50 = latency_us(0.5)
    one = "1 session, p50"
    lines = [
        compare("P1", one, runs, OURS, bare, of=p50, unit="us", target=Target("at most", 1.15)),
        compare("P1", one, runs, OURS, LOOP, of=p50, unit="us"),
        compare("P1", "1 session", runs, OURS, LOOP),
    ]
    return Result(lines, [latencies("latency-1-session", "One session", runs)], sizes(null))


async def p2(setting: Setting) -> Result:
    """Many sessions, each with a state of its own, beside the loop in a process of its own."""
    null = flat_state(STATE_BYTES)
    result = Result(sizes=sizes(null))
    curves: dict[str, list[tuple[float, float]]] = {OURS: [], LOOP: []}
    reducer = counting(null)
    for sessions, target in SESSIONS.items():
        if setting.quick and not target:
            continue
        await setting.fresh()
        async with setting.store(), loop_process(setting, sessions) as loop:
            contestants = [await ours(OURS, setting, reducer, sessions), loop]
            rounds = setting.rounds if target else min(3, setting.rounds)
            runs = await interleaved(contestants, rounds)
        for name, curve in curves.items():
            curve.append((sessions, middle([run.events_s for run in runs[name]]).median))
        if target:
            result.lines += _p2_lines(sessions, target, runs)
            name, title = f"latency-{sessions}-sessions", f"{sessions:,} sessions"
            result.charts.append(latencies(name, title, runs))
    throughput = Chart("throughput", "Throughput", "sessions", "events/s", curves)
    result.charts.insert(0, throughput)
    return result


def _p2_lines(sessions: int, target: float, runs: dict[str, list[Run]]) -> list[Line]:
    work = f"{sessions:,} sessions"
    spreads = [run.latency_us(0.99) / run.latency_us(0.5) for run in runs[OURS]]
    lines = [
        compare("P2", work, runs, OURS, LOOP, target=Target("at least", target)),
        compare("P2", f"{work}, p50", runs, OURS, LOOP, of=latency_us(0.5), unit="us"),
        compare("P2", f"{work}, p99", runs, OURS, LOOP, of=latency_us(0.99), unit="us"),
    ]
    if sessions >= 1000:
        limit = Target("at most", 4, "figure")
        lines.append(Line("P2", f"{work}, p99 / p50", "", middle(spreads), target=limit))
    return lines


async def ours(
    name: str, setting: Setting, reducer: DecoratedReducer, sessions: int, states: int = 0
) -> Contestant:
    """So many sessions through the decorator, on as many states where not said otherwise."""
    students = [f"ours-{number}" for number in range(states or sessions)]
    steps: list[Callable[[], Awaitable[Any]]] = []
    for number in range(sessions):
        student = students[number % len(students)]
        process = await reducer(metadata_of(student))
        steps.append(functools.partial(process, event_of(student), {}))

    async def check(sent: int) -> None:
        keys = [keys_of(reducer, student).internal for student in students]
        await setting.check_count(name, keys, sent)

    return Contestant(name, functools.partial(drive, steps, setting.seconds), check)


def looping(
    name: str,
    setting: Setting,
    baseline: Baseline,
    reducer: DecoratedReducer,
    sessions: int,
    *,
    states: int = 0,
    checked: bool = True,
) -> Contestant:
    """So many sessions through a baseline."""
    students = [f"{name}-{number}" for number in range(states or sessions)]
    steps: list[Callable[[], Awaitable[Any]]] = [
        functools.partial(baseline.process, keys_of(reducer, student), event_of(student))
        for student in itertools.islice(itertools.cycle(students), sessions)
    ]

    async def check(sent: int) -> None:
        keys = [keys_of(reducer, student).internal for student in students]
        await setting.check_count(name, keys, sent)

    return Contestant(
        name, functools.partial(drive, steps, setting.seconds), check if checked else None
    )


async def _bare_commits(name: str, setting: Setting, reducer: DecoratedReducer) -> Contestant:
    """The commands of ours, each sent by redis-py and its reply awaited, and nothing more.

    They are recorded first. A round that gets to their end begins again on an empty server's
    state, so that every one of them writes.
    """
    send: Any = setting.client.execute_command  # it has no types
    recorded = await commits(setting, reducer, name, 50 if setting.quick else 5_000)
    keys = {key for command in recorded[:1] for key in command if b"," in key or b":" in key}
    state = keys_of(reducer, name).internal

    async def begin() -> None:
        await setting.client.unlink(*keys)

    async def run() -> Run:
        clock = time.perf_counter
        latencies: list[float] = []
        waited = 0.0
        while waited < setting.seconds:
            await begin()
            for words in recorded:
                sent = clock()
                reply = await send(*words)
                latencies.append(clock() - sent)
                waited += latencies[-1]
                if reply != [b"c"]:
                    raise Miscount(f"{name}: a commit was answered {reply!r:.200}")
                if waited >= setting.seconds:
                    break
        return timed(latencies, waited)

    async def check(_sent: int) -> None:
        await begin()
        for words in recorded:
            await send(*words)
        await setting.check_count(name, [state], len(recorded))

    return Contestant(name, run, check)


def latencies(name: str, title: str, runs: dict[str, list[Run]]) -> Chart:
    """The latency of each contestant at each of QUANTILES."""
    curves = {
        contestant: [
            (quantile * 100, middle([run.latency_us(quantile) for run in found]).median)
            for quantile in QUANTILES
        ]
        for contestant, found in runs.items()
    }
    return Chart(name, title, "percentile", "latency, us", curves, log_x=False)


def sizes(null: Any) -> dict[str, int]:
    """The size of the state, for the record."""
    return {"state": text_size(null)}
