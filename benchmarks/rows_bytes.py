"""P6: the cost of an event with larger states."""

from __future__ import annotations

import time
from typing import Final

from benchmarks.rows_sessions import ours
from benchmarks.setting import Setting
from benchmarks.work import counting, flat_state, nested_state, text_size
from lo_kvs.kvs import codec
from lo_kvs.measure.report import Chart, Result, Target, compare, latency_us
from lo_kvs.measure.timing import Contestant, Run, interleaved, timed

STATE_SIZES: Final = (100, 1_000, 10_000, 100_000)
QUICK_SIZES: Final = (100, 10_000)


async def over_bytes(setting: Setting) -> Result:
    """One session on ever larger states, beside a bare SET of the same bytes."""
    result = Result()
    bare = "bare SET"
    curves: dict[str, list[tuple[float, float]]] = {}
    for shape, make in (("text", flat_state), ("nested", nested_state)):
        for size in QUICK_SIZES if setting.quick else STATE_SIZES:
            await setting.fresh()
            null = make(size)
            reducer = counting(null, f"{shape}_{size}")
            async with setting.store():
                mine = await ours(shape, setting, reducer, 1)
                contestants = [mine, _setting_bytes(bare, setting, codec.encode(null))]
                runs = await interleaved(contestants, min(setting.rounds, 3))
            work, p50 = f"one session, {shape} state of {size:,} bytes, p50", latency_us(0.5)
            limit = Target("at most", 3)
            line = compare("P6", work, runs, shape, bare, of=p50, unit="us", target=limit)
            result.lines.append(line)
            result.sizes[f"{shape} {size}"] = text_size(null)
            curves.setdefault(shape, []).append((text_size(null), line.figure.median))
            if line.against is not None and shape == "text":
                curves.setdefault(bare, []).append((text_size(null), line.against.median))
    title = "One session's event"
    chart = Chart("cost-over-bytes", title, "bytes of the state", "p50, us", curves)
    result.charts.append(chart)
    return result


def _setting_bytes(name: str, setting: Setting, text: bytes) -> Contestant:
    async def run() -> Run:
        clock = time.perf_counter
        latencies: list[float] = []
        began = clock()
        until = began + setting.seconds
        while clock() < until:
            sent = clock()
            await setting.client.set("bare", text)
            latencies.append(clock() - sent)
        return timed(latencies, clock() - began)

    return Contestant(name, run)
