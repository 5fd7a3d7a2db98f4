"""The codec against the standard library's json, byte by byte: the same value, or both refuse.

tests/codec/ has the law on values and the cases by hand; here real texts are damaged, those of
event logs among them, and the corners of JSON's grammar are tried systematically.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from tests.faults.tally import Tally
from tests.faults.workers import tell

from lo_kvs.kvs.codec import _py
from lo_kvs.kvs.errors import NotJSON
from lo_kvs.simulate import simulate

try:
    from lo_kvs.kvs.codec import _c
except ImportError:  # tests/kvs/codec/test_choice.py says whether it may be missing
    TWINS: list[ModuleType] = [_py]
else:
    TWINS = [_c, _py]

DEPTH_READ_MAX = 1024
DAMAGED = 30_000

# -- texts -----------------------------------------------------------------------------------

NUMBERS = [
    *("0", "-0", "-", "+1", "01", "-01", "1.", ".1", "1.0", "-1.5", "1e5", "1E+5", "1e-5", "1e"),
    *("1e+", "1.e1", "1.5e3.2", "0x10", "1_000", "1e400", "-1e400", "1e-400", "0e0", "--1", "1-"),
    *(str(sign * (2**bits + by)) for sign in (1, -1) for bits in (53, 63, 64) for by in (-1, 0, 1)),
    *("9" * length for length in (18, 19, 20, 21, 400, 4_300, 4_301)),
    *("0." + "3" * length for length in (16, 17, 18, 19, 40, 800)),
    *("1" * 19 + tail for tail in (".0", "e0", "E1", ".", "e", "x", ",1", "]", " ")),
    *("2.2250738585072011e-308", "4.9e-324", "2.4703282292062327e-324", "1.7976931348623159e308"),
    *("NaN", "-NaN", "nan", "Infinity", "-Infinity", "+Infinity", "inf", "infinity", "INFINITY"),
]
WORDS = ["null", "true", "false", "nul", "nulll", "True", "None", "TRUE", "undefined", "a", "\\"]
STRINGS = [
    *(
        '""',
        '"a"',
        '"',
        "'a'",
        '"a',
        'a"',
        '"\\',
        '"\\"',
        '"\\\\"',
        '"\\q"',
        '"\\u12"',
        '"\\u12g4"',
    ),
    *('"\\u0000"', '"\\ud800"', '"\\udc00"', '"\\ud83d\\ude00"', '"\\ude00\\ud83d"', '"\\ud83d"'),
    *(
        '"\\ud83d\\u0041"',
        '"\\ud83dx\\ude00"',
        '"\\uD83D\\uDE00"',
        '"\\U0001f600"',
        '"\\/"',
        '"\\a"',
    ),
    *(
        f'"{chr(code)}"'
        for code in (*range(0x21), 0x7F, 0x80, 0xFF, 0x2028, 0xFEFF, 0xFFFF, 0x1F600)
    ),
    *(f'"\\{chr(code)}"' for code in range(0x20, 0x7F)),
]
BYTES = [
    *(
        b"",
        b" ",
        b"\n\t\r ",
        b"\xef\xbb\xbf1",
        b'\xef\xbb\xbf""',
        b"1\xef\xbb\xbf",
        b"\x00",
        b"1\x00",
    ),
    *(
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\xed\xb0\x80"',
        b'"\xf4\x90\x80\x80"',
        b'"\xf8\x88\x80"',
    ),
    *(b'"\xe9"', b'"\xc3"', b'"\xe2\x82"', b'"\x80"', b'"\xff"', b"\xc2\xa0[]", b"\x0c1", b"\x0b1"),
    *(
        "[1]".encode(form)
        for form in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16")
    ),
]
CONTAINERS = [
    *(
        "[]",
        "{}",
        "[",
        "]",
        "{",
        "}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,,2]",
        "[1}",
        "{1}",
        "[]]",
        "[[]",
    ),
    *(
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{,"a":1}',
        '{"a" 1}',
        '{"a"::1}',
        "{a:1}",
        "{1:1}",
        "{null:1}",
    ),
    *('{"a":1 "b":2}', '{"a":1,"a":2}', '{"":0}', '{"a":{"a":{}}}', '{"\\u0061":1,"a":2}'),
    *('{"\\ud800":1,"\\ud800":2}', "[1]//", "[1]/**/", "#[1]", "[1] x", "[1],", "1 2", ",", ":"),
    *("[" * n + "]" * m for n in (1, 500, 1_023, 1_024, 1_025, 30_000) for m in (n - 1, n, n + 1)),
    *('{"a":' * n + "1" + "}" * n for n in (1, 1_024, 1_025, 30_000)),
]
LITERALS = [*NUMBERS, *WORDS, *STRINGS, *CONTAINERS]
#: What a literal stands in; the blanks are all that JSON has, and some that it has not.
AROUND = [
    "{}",
    "[{}]",
    '{{"k":{}}}',
    "[0,{},0]",
    " \t\r\n{} \t\r\n",
    "\u00a0{}",
    "[{}\f]",
    "[{0},{0}]",
]


def corners() -> Iterator[bytes]:
    """The literals, each where a value may stand and where none may."""
    yield from BYTES
    for literal, around in itertools.product(LITERALS, AROUND):
        yield around.format(literal).encode("utf-8", "surrogatepass")


def logged() -> list[bytes]:
    """Lines of event logs and states, as json wrote them and as the codec does."""
    events = list(simulate(4, 40, seed=5))
    state = {"text": "é\ud83d “😀”", "big": [2**70, -(2**64), 2**63], "f": [0.1, 1e300, -0.0]}
    values: list[Any] = [*events, {"events": events[:3]}, state, [[state] * 2, {"": None}]]
    forms = [
        lambda value: json.dumps(value).encode(),
        lambda value: json.dumps(value, indent=1).encode(),
        _py.encode,
    ]
    return [form(value) for value in values for form in forms]


PARTS = [
    *(b'"', b"\\", b",", b":", b"[", b"]", b"{", b"}", b" ", b"\n", b"\x00", b"\x1f", b"\x7f"),
    *(b"0", b"1", b"-", b"+", b".", b"e", b"E1", b"9" * 19, b"9" * 20, b"18446744073709551616"),
    *(b"\\u", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00", b"\\n", b"null", b"true", b"NaN"),
    *(
        b"Infinity",
        b"\xff",
        b"\xc3",
        b"\xa9",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\xf0\x9f\x98\x80",
    ),
]


def damaged(text: bytes, draw: random.Random) -> bytes:
    """`text` with some bytes flipped, cut out, put in, doubled, or its end cut off."""
    out = bytearray(text)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at = draw.randrange(len(out) + 1)
        end = min(len(out), at + draw.choice([1, 1, 2, 8, 40]))
        match draw.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << draw.randrange(8)
            case 1:
                del out[at:end]
            case 2:
                out[at:at] = draw.choice(PARTS)
            case 3:
                out[at:end] = draw.choice(PARTS)
            case 4:
                out[at:at] = out[at:end]
            case _:
                if draw.random() < 0.2:
                    del out[at:]
    return bytes(out)


# -- the judge -------------------------------------------------------------------------------


def listener(text: bytes) -> tuple[bool, Any]:
    """Whether json reads `text`, as UTF-8 and no deeper than is promised; and what it reads."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)  # so that the standard library gets as deep as is promised
    try:
        value = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        return False, None
    finally:
        sys.setrecursionlimit(limit)
    if text.count(b"[") + text.count(b"{") > DEPTH_READ_MAX and is_too_deep(value):
        return False, None
    return True, value


def is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_READ_MAX):
        level = [
            member
            for each in level
            if isinstance(each, list | dict)
            for member in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, list | dict) for each in level)


def same(value: Any, other: Any) -> bool:
    """Equal, of the same types and in the same order everywhere; also -0.0, and NaN."""
    todo = [(value, other)]
    while todo:
        one, two = todo.pop()
        if type(one) is not type(two):
            return False
        if isinstance(one, dict):
            if list(one) != list(two):
                return False
            todo += zip(one.values(), two.values(), strict=True)
        elif isinstance(one, list):
            if len(one) != len(two):
                return False
            todo += zip(one, two, strict=True)
        elif repr(one) != repr(two):
            return False
    return True


def check(text: bytes) -> bool:
    """Both twins read what json reads, as json does, write it again, and refuse all else."""
    reads, value = listener(text)
    if not reads:
        for twin in TWINS:
            with pytest.raises(ValueError, match=r"."):
                raise AssertionError(f"read as {twin.decode(text)!r}: {text!r}")
        return False
    for twin in TWINS:
        assert same(twin.decode(text), value), text
    written = {outcome(twin, value) for twin in TWINS}
    assert len(written) == 1, text
    again = written.pop()
    if isinstance(again, bytes):
        for twin in TWINS:
            assert same(twin.decode(again), value), text
        assert same(listener(again)[1], value), text
    else:  # what is read and not written: NaN, Infinity, deeper than is written
        assert again.startswith("$"), again
        assert "deep" in again or has_no_text(value), text
    return True


def outcome(twin: ModuleType, value: Any) -> bytes | str:
    try:
        written = twin.encode(value)
    except NotJSON as refusal:
        return str(refusal)
    assert isinstance(written, bytes)
    return written


def has_no_text(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return True
    return False


# -- the tests -------------------------------------------------------------------------------


def test_corners_of_the_grammar(tally: Tally) -> None:
    verdicts = [check(text) for text in corners()]
    assert verdicts.count(True) > 500
    assert verdicts.count(False) > 1_000
    tally("T20", len(verdicts), f"corners of JSON: {sum(verdicts)} read alike, the rest refused")


def test_damaged_logs(seed: int, tally: Tally) -> None:
    draw = random.Random(seed)
    texts = logged()
    assert all(check(text) for text in texts)
    verdicts = [check(damaged(draw.choice(texts), draw)) for _ in range(DAMAGED)]
    tell(f"{sum(verdicts)} of {DAMAGED} damaged texts are still JSON")
    assert verdicts.count(True) > DAMAGED // 50
    assert verdicts.count(False) > DAMAGED // 50
    tally("T20", DAMAGED, f"damaged logs: {sum(verdicts):,} read alike, the rest refused")


def test_judge_sees_what_orjson_alone_would_do() -> None:
    """The judge can fail a reader: one that makes floats of big integers, or drops a sign."""
    assert not same(listener(b"18446744073709551616")[1], 1.8446744073709552e19)
    assert not same(listener(b"[-0.0]")[1], [0.0])
    assert not same(listener(b'{"a":1,"b":2}')[1], {"b": 2, "a": 1})
    assert same(listener(b"[NaN]")[1], [math.nan])
    assert not listener(b"\xef\xbb\xbf1")[0]
    assert not listener(b"[" * 1_025 + b"]" * 1_025)[0]
