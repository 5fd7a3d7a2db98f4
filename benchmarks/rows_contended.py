"""P5: 64 sessions that share one state."""

from __future__ import annotations

import dataclasses
from typing import Final

from benchmarks.baselines import Baseline, Compared, ReadSetSet, Watched
from benchmarks.loop_process import LOOP, STATE_BYTES
from benchmarks.rows_sessions import OURS, looping, ours, sizes
from benchmarks.setting import Setting, counted
from benchmarks.work import counting, flat_state, keys_of, plain
from lo_kvs.measure.report import Line, Result, Target, compare, latency_us
from lo_kvs.measure.timing import interleaved, middle

SESSIONS: Final = 64
QUICK_SESSIONS: Final = 8  # the more there are, the slower the loops that conflict
#: Contended loops are so slow that a round must be longer to show them at all.
BASELINE_SECONDS: Final = 1.0


async def p5(setting: Setting) -> Result:
    """None lost, beside a loop that loses nearly all and two that lose none."""
    await setting.fresh()
    null = flat_state(STATE_BYTES)
    reducer = counting(null)
    function = plain(reducer)
    sessions = QUICK_SESSIONS if setting.quick else SESSIONS
    longer = dataclasses.replace(
        setting, seconds=setting.seconds if setting.quick else BASELINE_SECONDS
    )
    watched, compared = "WATCH/MULTI", "GET, compare-and-set"
    unsafe = ReadSetSet(setting.client, function, null)
    loop = looping(LOOP, setting, unsafe, reducer, sessions, states=1, checked=False)
    safe: dict[str, Baseline] = {
        watched: Watched(setting.client, function, null),
        compared: Compared(setting.client, function, null),
    }
    slow = [
        looping(name, longer, baseline, reducer, sessions, states=1)
        for name, baseline in safe.items()
    ]
    async with setting.store():
        mine = await ours(OURS, setting, reducer, sessions, 1)
        runs = await interleaved([mine, loop, *slow], min(setting.rounds, 5))
    kept = await counted(setting.client, [keys_of(reducer, f"{LOOP}-0").internal])
    lost = f"the loop lost {1 - kept / loop.sent:.1%} of {loop.sent:,}"
    work = f"{sessions} sessions on one key"
    speed = Target("at least", 100_000, "figure")
    p99 = middle([run.latency_us(0.99) for run in runs[OURS]])
    lines = [
        compare("P5", work, runs, OURS, LOOP, target=speed, note=lost),
        compare("P5", work, runs, OURS, watched),
        compare("P5", work, runs, OURS, compared),
        Line("P5", f"{work}, p99", "us", p99, target=Target("at most", 5000, "figure")),
        compare("P5", f"{work}, p99", runs, OURS, compared, of=latency_us(0.99), unit="us"),
    ]
    return Result(lines, sizes=sizes(null))
