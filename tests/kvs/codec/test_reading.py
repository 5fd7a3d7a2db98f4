"""What the codec reads: all that the standard library's json wrote, and nothing else."""

from __future__ import annotations

import json
import math
import random
import sys
from types import ModuleType
from typing import Any

import pytest

DEPTH = 1024  # what is read, and no deeper

TEXTS: list[tuple[bytes, Any]] = [
    (b' {"a" :\t[1 ,\r\n2 ] } ', {"a": [1, 2]}),
    (b'"\\u00e9\\ud83d\\ude00\\/\\b"', "é😀/\b"),
    (b'"\\ud800"', "\ud800"),
    (b'["\\udc00\\ud800", {"\\ud800": 1}]', ["\udc00\ud800", {"\ud800": 1}]),
    (b"[Infinity, -Infinity]", [math.inf, -math.inf]),
    (b"[1e400, -1e400]", [math.inf, -math.inf]),
    (b"1e-400", 0.0),
    (b"-0", 0),
    (b"-0.0", -0.0),
    (b"1E5", 100000.0),
    (b'{"a": 1, "b": 2, "a": 3}', {"a": 3, "b": 2}),
    (b"9999999999999999999", 9999999999999999999),
    (b"18446744073709551615", 18446744073709551615),
    (b"18446744073709551616", 18446744073709551616),
    (b"-9223372036854775808", -9223372036854775808),
    (b"-9223372036854775809", -9223372036854775809),
    (b"[0,-9999999999999999999]", [0, -9999999999999999999]),
    (b'{"a":  \t99999999999999999999}', {"a": 99999999999999999999}),
    (b"[99999999999999999999\n]", [99999999999999999999]),
    (b'{"a":99999999999999999999}', {"a": 99999999999999999999}),
    (b'{"a":-9223372036854775809}', {"a": -9223372036854775809}),
    (b"0.00012345678901234567", 0.00012345678901234567),
    (b"123456789012345678901234567890.5", 1.2345678901234568e29),
    (b"123456789012345678901234567890e0", 1.2345678901234568e29),
    (b"1e0000000000000000000001", 10.0),
    (b'", 123456789012345678901234567890 ,"', ", 123456789012345678901234567890 ,"),
]

NO_TEXTS = [b"", b" ", b"[1,]", b'{"a":1,}', b"{'a':1}", b"01", b"1.", b".5", b"+1", b"-", b"nul"]
NO_TEXTS += [b"nan", b'"', b'"\n"', b"[1", b"[1}", b'{"a"}', b'{"a":}', b"{1:2}", b"[] []"]
NO_TEXTS += [b"\xff", b'"\xed\xa0\x80"', b'"\xc3"', b"\xef\xbb\xbf1", b"1\x00", b'"\\x"']
NO_TEXTS += ["[1]".encode("utf-16"), b"9" * 5000, b"099999999999999999999", b"--" + b"9" * 20]


def same(left: Any, right: Any) -> bool:
    """Equal, of the same types, in the same order: all of it shows in the repr."""
    return repr(left) == repr(right)


@pytest.mark.parametrize(("text", "value"), TEXTS)
def test_text(codec: ModuleType, text: bytes, value: Any) -> None:
    assert same(codec.decode(text), value)
    assert same(json.loads(text), value)  # so that the table itself is right


def test_nan(codec: ModuleType) -> None:
    value = codec.decode(b'{"a": NaN}')["a"]
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize("text", NO_TEXTS)
def test_invalid_text(codec: ModuleType, text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        codec.decode(text)


@pytest.mark.parametrize("what", ["{}", bytearray(b"{}"), memoryview(b"{}"), None])
def test_decode_requires_bytes(codec: ModuleType, what: Any) -> None:
    with pytest.raises(TypeError, match="expected bytes"):
        codec.decode(what)


@pytest.mark.parametrize("blanks", range(40))
def test_big_integer_at_every_offset(codec: ModuleType, blanks: int) -> None:
    """The scan for digits looks at some bytes only: no offset may slip through."""
    for value in (10**19 + 1, 2**64, -(2**63) - 1, 10**40 + 7):
        lone = [b" " * blanks + str(value).encode(), b'["' + b"a" * blanks + b'",%d]' % value]
        for text in lone:
            assert same(codec.decode(text), json.loads(text))
        many = b"[" + b"1," * blanks + b"%d]" % value
        assert same(codec.decode(many), json.loads(many))


def deep(depth: int, scalar: str, *, key: bool) -> bytes:
    opening, closing = ('{"a": ', "}") if key else ("[ ", " ]")
    return (opening * depth + scalar + closing * depth).encode()


@pytest.mark.parametrize("key", [False, True])
@pytest.mark.parametrize("scalar", ["1", "NaN", str(2**70), '"\\ud800"', '[1, {"b": [], "c": 2}]'])
def test_deep_text(codec: ModuleType, scalar: str, *, key: bool) -> None:
    own = scalar.count("[") and 3  # how deep the innermost value is itself
    value = codec.decode(deep(DEPTH - own, scalar, key=key))
    for _ in range(DEPTH - own):
        value = value["a"] if key else value[0]
    assert same(value, json.loads(scalar))
    for depth in (DEPTH + 1 - own, 100_000):
        with pytest.raises(ValueError, match="nested more than 1024 deep"):
            codec.decode(deep(depth, scalar, key=key))


DEEP_FAULTS = ["", ",", "1 2", '{"a"}', '{"a" 1}', "{1: 2}", '{"a": 1,}', "[1,]", "[1}", "1]"]


@pytest.mark.parametrize("fault", DEEP_FAULTS)
def test_deep_text_with_a_fault(codec: ModuleType, fault: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Extra data|[Ii]llegal trailing comma"):
        codec.decode(deep(1020, f"[NaN, {fault}]", key=False))


def at_depth_of_stack(frames: int, call: Any) -> Any:
    return call() if frames == 0 else at_depth_of_stack(frames - 1, call)


def test_caller_on_a_deep_stack(codec: ModuleType) -> None:
    text = deep(1000, "NaN", key=False)
    frames = sys.getrecursionlimit() // 2
    assert at_depth_of_stack(frames, lambda: codec.decode(text)) is not None
    value: Any = (1,)
    for _ in range(200):
        value = [value]
    assert at_depth_of_stack(frames, lambda: codec.encode(value)) == b"[" * 201 + b"1" + b"]" * 201


SEEDS = [text for text, _ in TEXTS] + [
    b'{"students": [{"id": "s1", "score": 1.5, "ok": true}, null], "n": 12345678901234567890123}',
    '["é😀", "\\ud83d\\ude00", {"a": {"b": [[], {}, "x"]}}]'.encode(),
    b"[-1, 0, 1e10, 1.5E-3, 18446744073709551615, -9223372036854775809]",
]
PARTS = [
    b"0",
    b"9" * 19,
    b"9" * 20,
    b"-",
    b".",
    b"e",
    b",",
    b":",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b" ",
]
PARTS += [
    b"\\",
    b"\\ud800",
    b"\\udc00",
    b"NaN",
    b"Infinity",
    b"null",
    b"\xff",
    b"\xc3\xa9",
    b"\x00",
]


def mutated(random_: random.Random) -> bytes:
    text = bytearray(random_.choice(SEEDS))
    for _ in range(random_.choice([1, 1, 1, 2, 3])):
        begin = random_.randint(0, len(text))
        end = min(len(text), begin + random_.choice([0, 0, 0, 1, 1, 3]))
        text[begin:end] = random_.choice(PARTS)
    return bytes(text)


def test_mutated_text(codec: ModuleType) -> None:
    """json.loads is the judge of 20,000 texts: the same value, or both refuse."""
    random_ = random.Random(20240607)
    read = refused = 0
    for _ in range(20_000):
        text = mutated(random_)
        try:
            expected = json.loads(text.decode())
        except ValueError:
            refused += 1
            with pytest.raises(ValueError, match=r"."):
                codec.decode(text)
        else:
            read += 1
            assert same(codec.decode(text), expected), text
    assert read > 2_000, "the fuzz must read something"
    assert refused > 2_000, "and meet faults"
