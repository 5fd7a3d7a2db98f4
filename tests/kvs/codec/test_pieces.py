"""Decoding in pieces gives the same result as decoding at once, including errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lo_kvs.kvs.codec import pieces
from lo_kvs.kvs.codec._py import NO_END, UNCLOSED

#: Pieces of so few bytes that short texts are cut in many places, in members of members too.
SMALL = 24

values = st.recursive(
    st.none()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.sampled_from('aé😀"\\[]{},: \n'), max_size=40),
    lambda inner: (
        st.lists(inner, max_size=8)
        | st.dictionaries(st.text(st.sampled_from('ab"\\,{'), max_size=3), inner, max_size=8)
    ),
    max_leaves=60,
)
formats: Any = st.sampled_from(
    [{}, {"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}]
)


@pytest.fixture
def cut_small(codec: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The twin does the work, in small pieces."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", SMALL)
    monkeypatch.setattr(pieces, "decode", codec.decode)
    monkeypatch.setattr(pieces, "end_of_members", codec.end_of_members)
    return codec


def in_pieces(data: bytes) -> tuple[Any, int]:
    """The value, and in how many steps it was made."""
    steps = pieces.decode_pieces(data)
    count = 1
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def outcome(decode: Any, data: bytes) -> str:
    try:
        return repr(decode(data))
    except ValueError as error:
        return f"ValueError: {error}"
    except RecursionError:  # of `repr`
        return "deep"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=values, form=formats)
def test_same_value(cut_small: ModuleType, value: Any, form: Any) -> None:
    data = json.dumps(value, **form).encode()
    assert repr(in_pieces(data)[0]) == repr(cut_small.decode(data))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=values, at=st.integers(0, 10_000), to=st.sampled_from(b'"\\[]{},:0 \xff'))
def test_same_answer_for_damaged_text(cut_small: ModuleType, value: Any, at: int, to: int) -> None:
    data = bytearray(json.dumps([value, value, {"a": value}]).encode())
    data[at % len(data)] = to
    damaged = bytes(data)
    found = outcome(lambda text: in_pieces(text)[0], damaged)
    assert found == outcome(cut_small.decode, damaged)


ROW = b"[1, 2, 3, 4, 5, 6, 7, 8, 9]"
TEXTS = [
    b"[" + ROW + b"," + ROW + b"]",
    b'{"a": ' + ROW + b', "b": {"c": ' + ROW + b', "a": 1}, "a": 2}',
    b'["' + b"x" * 100 + b'", ' + ROW + b', "' + b'\\"' * 50 + b'"]',
    b'["' + b"\\\\" * 50 + b'", 1' + b"0" * 60 + b", -1" + b"0" * 60 + b"]",
    b"[" * 60 + b"1" + b"]" * 60,
    b"[" * 1024 + b"]" * 1024,
    b"[" * 1025 + b"]" * 1025,
    b'[{"a":' * 512 + b"1" + b"}]" * 512,
    b'[{"a":' * 513 + b"1" + b"}]" * 513,
    b"[[NaN, Infinity, -Infinity, 1e400], " + ROW + b"]",
    b'["\\ud83d", "\\ud83d\\ude00", "\\ud800", ' + ROW + b"]",
    b"[" + ROW + b",]", b"[," + ROW + b"]", b"[" + ROW + b",," + ROW + b"]", b"[" + ROW + b"}",
    b"[" + ROW + b"] 1", b"[" + ROW, b"[" + ROW + b'] "', b"\xef\xbb\xbf[" + ROW + b"]",
    b'{"a" ' + ROW + b', "b": 1}', b'{1: "' + b"x" * 50 + b'"}', b'{"a": ' + ROW + b",}",
    b'[ "' + b"x" * 100, b'"' + b"x" * 100 + b'"', b" " * 100,
    b"\n[ ] " + b" " * 100, b"{" + b" " * 99 + b"}",
    b"[" + b" " * 99 + b", 1]", b"[1" + b" " * 99 + b"]", b"[" + b"1 " * 50 + b"]",
    b"[" + ROW + b" x]",
]  # fmt: skip


@pytest.mark.parametrize("data", TEXTS)
def test_cases(cut_small: ModuleType, data: bytes) -> None:
    found = outcome(lambda text: in_pieces(text)[0], data)
    assert found == outcome(cut_small.decode, data)


def test_large_values_take_many_steps(codec: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "end_of_members", codec.end_of_members)
    large = [list(range(100_000)), {f"key {at}": {"n": at} for at in range(40_000)}]
    for value in (large, {"rows": large, "n": 1}, large[0], large[1]):
        data = json.dumps(value).encode()
        found, steps = in_pieces(data)
        assert found == value
        assert steps > len(data) / pieces.PIECE_BYTES
    data = json.dumps("x" * 1_000_000).encode()
    assert in_pieces(data) == ("x" * 1_000_000, 2)  # one text cannot be cut


@settings(deadline=None)
@given(
    data=st.text(st.sampled_from('a"\\[]{},'), max_size=60),
    at=st.integers(0, 20),
    most=st.integers(0, 60),
    first=st.booleans(),
)
def test_twins_cut_alike(
    twins: dict[str, ModuleType], data: str, at: int, most: int, first: bool
) -> None:
    text = data.encode()
    ends = {twin.end_of_members(text, at, most, first=first) for twin in twins.values()}
    assert len(ends) == 1
    (end,) = ends
    assert end in {NO_END, UNCLOSED} or text[end] in b",]}"
