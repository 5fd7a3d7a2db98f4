"""P7: encoding with the check, compared with plain orjson and the standard library's json."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from benchmarks.bench_codec import STATES
from benchmarks.setting import Setting
from lo_kvs.kvs import codec
from lo_kvs.measure.report import Result, Target, compare
from lo_kvs.measure.timing import Contestant, Miscount, Run, interleaved

OURS: Final = "codec"
ORJSON: Final = "bare orjson"
JSON: Final = "json"
REPEAT_S: Final = 0.003  # of one contestant's turn: short, so that all meet the same moments


async def p7(setting: Setting) -> Result:
    """Microseconds to encode each of three states."""
    import json

    result = Result()
    for name, state in STATES.items():
        contestants = [
            _repeating(OURS, codec.encode, state),
            _repeating(ORJSON, orjson.dumps, state),
            _repeating(JSON, lambda value: json.dumps(value).encode(), state),
        ]
        rounds = 5 if setting.quick else 151
        runs = await interleaved(contestants, rounds, collect=False)
        size = len(orjson.dumps(state))
        result.sizes[name] = size
        work = f"encode {size:,} bytes"
        limit = Target("at most", 1.6)
        per_call = _per_call
        result.lines += [
            compare("P7", work, runs, OURS, ORJSON, of=per_call, unit="us", target=limit),
            compare("P7", work, runs, OURS, JSON, of=per_call, unit="us"),
        ]
    return result


def _per_call(run: Run) -> float:
    return run.event_us


def _repeating(name: str, encode: Callable[[Any], Any], state: Any) -> Contestant:
    began = time.perf_counter()
    for _ in range(5):
        encode(state)
    number = max(1, int(REPEAT_S / ((time.perf_counter() - began) / 5)))

    async def run() -> Run:
        repeats = range(number)
        began = time.perf_counter()
        for _ in repeats:
            encode(state)
        return Run(number, time.perf_counter() - began)

    async def check(_sent: int) -> None:
        if repr(orjson.loads(encode(state))) != repr(state):
            raise Miscount(
                f"{name} does not write the state of {len(encode(state))} bytes as it is"
            )

    return Contestant(name, functools.partial(run), check)
