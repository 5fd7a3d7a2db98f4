"""Benchmarks of the codec against plain orjson and the standard library's json.

Compare only figures of the same run; other load on the machine changes all of them.

    python benchmarks/bench_codec.py                   the ratios of the two twins to orjson
    pytest benchmarks/bench_codec.py --benchmark-only  all of them, in pytest-benchmark's table

Three states: a small dict of scalars, a reducer's state, and a large nested one (93 bytes,
1.8 KB and 88 KB of text, as in the figures that this project set out to beat). Before
anything is timed, every contestant must give the value back unchanged. The compiled codec
must be built: python setup.py build_ext --inplace.
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import orjson
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lo_kvs.kvs.codec import Json, _c, _py


def _small() -> Json:
    return {
        "saved_ts": 1699999999.123,
        "time_on_task": 1234.5,
        "count": 1742,
        "doc": "1Xq9Z_ab",
        "active": True,
    }


def _reducer() -> Json:
    """Time on task in bins, and the documents that a student touched."""
    return {
        "saved_ts": 1700003000.25,
        "total_time_on_task": 2954.75,
        "bins": {str(1700000000 + 300 * i): round(i * 3.7, 2) for i in range(60)},
        "documents": [f"1Xq9Zdoc{i:04d}" for i in range(35)],
        "last_document": {"document_id": "1Xq9Zdoc0034", "title": None, "saved": False},
    }


def _large() -> Json:
    """The states of a class with their texts: nested dicts and lists, numbers, prose."""
    return {
        "students": [
            {
                "id": f"student-{i:03d}",
                "score": i * 0.37,
                "text": "It was a bright cold day in April, and the clocks were striking. " * 2,
                "edits": [i, i + 1, i * 7, [i % 3, None, i % 2 == 0]],
                "documents": {"first": {"words": i * 11, "minutes": i / 7}, "second": None},
            }
            for i in range(305)
        ]
    }


STATES: Final[dict[str, Json]] = {"small": _small(), "reducer": _reducer(), "large": _large()}

Decode = Callable[[bytes], Any]


def _json_encode(value: object) -> bytes:
    return json.dumps(value).encode()


ENCODERS: Final[dict[str, Callable[[Any], Any]]] = {
    "orjson": orjson.dumps,
    "compiled": _c.encode,
    "compiled encode_state": _c.encode_state,
    "pure": _py.encode,
    "json": _json_encode,
}
DECODERS: Final[dict[str, Decode]] = {
    "orjson": orjson.loads,
    "compiled": _c.decode,
    "pure": _py.decode,
    "json": json.loads,
}


def _text(encoded: bytes | tuple[bytes, bool]) -> bytes:
    return encoded if isinstance(encoded, bytes) else encoded[0]


def check() -> None:
    """Every contestant gives every state back unchanged; otherwise RuntimeError."""
    for size, state in STATES.items():
        for name, encode in ENCODERS.items():
            if repr(json.loads(_text(encode(state)))) != repr(state):
                raise RuntimeError(f"{name} does not write the {size} state as it is")
        for name, decode in DECODERS.items():
            if repr(decode(orjson.dumps(state))) != repr(state):
                raise RuntimeError(f"{name} does not read the {size} state as it is")


@pytest.mark.parametrize("size", STATES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_encode(benchmark: BenchmarkFixture, size: str, encoder: str) -> None:
    state = STATES[size]
    benchmark.group = f"encode {size}, {len(orjson.dumps(state))} bytes"
    encoded = benchmark(ENCODERS[encoder], state)
    assert repr(json.loads(_text(encoded))) == repr(state)


@pytest.mark.parametrize("size", STATES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_decode(benchmark: BenchmarkFixture, size: str, decoder: str) -> None:
    text = orjson.dumps(STATES[size])
    benchmark.group = f"decode {size}, {len(text)} bytes"
    assert repr(benchmark(DECODERS[decoder], text)) == repr(STATES[size])


def medians_us(calls: dict[str, Callable[[Any], Any]], argument: Any) -> dict[str, float]:
    """Microseconds per call: the least of 7 medians of 15 rounds.

    The contestants take turns round by round, so that a slow moment of the machine meets
    all of them alike.
    """
    number = {}
    for name, call in calls.items():
        began = time.perf_counter()
        for _ in range(20):
            call(argument)
        number[name] = max(1, int(0.002 / ((time.perf_counter() - began) / 20)))
    least = dict.fromkeys(calls, float("inf"))
    gc.disable()
    try:
        for _ in range(7):
            rounds: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(15):
                for name, call in calls.items():
                    repeats = range(number[name])
                    began = time.perf_counter()
                    for _ in repeats:
                        call(argument)
                    rounds[name].append((time.perf_counter() - began) / len(repeats) * 1e6)
            for name, times in rounds.items():
                least[name] = min(least[name], statistics.median(times))
    finally:
        gc.enable()
    return least


def main() -> None:
    check()
    print(
        f"Python {platform.python_version()}, orjson {orjson.__version__}, "
        f"{platform.system()} {platform.machine()}"
    )
    print(f"{'work':<16}{'bytes':>7}  {'contestant':<22}{'us':>9}  ratio to orjson")
    for size, state in STATES.items():
        text = orjson.dumps(state)
        for work, calls, argument in (
            ("encode", ENCODERS, state),
            ("decode", DECODERS, text),
        ):
            times = medians_us(dict(calls), argument)
            for name, took in times.items():
                ratio = took / times["orjson"]
                print(f"{work:<7}{size:<9}{len(text):>7}  {name:<22}{took:>9.3f}  {ratio:.2f}")


if __name__ == "__main__":
    main()
