"""Packing: the compiled and the pure version give the same bytes and take the same changes."""

from __future__ import annotations

import gc
import sys
from collections import deque
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lo_kvs.kvs import Change, Guard
from lo_kvs.kvs.redis.protocol.commit_script import UNBOUNDED
from lo_kvs.kvs.redis.protocol.packing import (
    CommandHead,
    Name,
    WaitingChange,
    change_of,
    pack,
    pack_purely,
    size_of,
)

BEGIN = CommandHead(b"$7\r\nEVALSHA\r\n$6\r\ndigest\r\n", 2)
RECORD = b"__lokvs:writer:1"
names = st.sampled_from(["a", "b", "c", "", "Internal,m.f,STUDENT:x", "\u201cq\u201d", "\x00"])
values = st.binary(max_size=20) | st.sampled_from([b"x" * 512, b"y" * 513])
puts = st.dictionaries(names, st.none() | values, max_size=4)
changes = st.builds(Change, names, st.none() | st.binary() | st.just(Guard.ANY), puts)


def done(_: object) -> None:
    """A callback that is not called in these tests."""


def taken(
    packing: Any,
    queue: list[WaitingChange],
    most: int,
    size: int,
    name: Name | None,
    large: int = UNBOUNDED,
) -> tuple[list[WaitingChange], list[WaitingChange], list[bytes]]:
    """What a twin took, what it left, and the words that it made."""
    waiting = deque(queue)
    group: list[Any] = []
    command, count, at = packing(
        *(BEGIN, waiting, group, b"p\xc3\xa4:", RECORD, (7, 600_000, 0)),
        *(most, size, large, name),
    )
    reader = hiredis.Reader()
    reader.feed(command)
    words = reader.gets()
    assert isinstance(words, list)
    assert words[:2] == [b"EVALSHA", b"digest"]
    assert len(words) == 2 + count
    assert reader.gets() is False  # not a byte more
    reader.feed(b"*%d\r\n" % count + command[at:])
    assert reader.gets() == words[2:]
    taken = queue[: len(group)]
    assert group == [(change.guard, done) for change, done in (each[:2] for each in taken)]
    return taken, list(waiting), words[2:]


@settings(max_examples=300)
@given(
    found=st.lists(changes, min_size=1, max_size=8),
    most=st.integers(1, 9),
    large=st.sampled_from([UNBOUNDED, 1025, 30]),
    name=st.sampled_from([None, "{{{}}}".format]),
)
def test_twins_pack_alike(found: list[Change], most: int, large: int, name: Name | None) -> None:
    queue: list[WaitingChange] = [(change, done) for change in found]
    mine, other = (taken(p, queue, most, 1 << 20, name, large) for p in (pack, pack_purely))
    assert mine == other
    assert all(
        size_of(change.expected, change.puts) < large
        for change in (waiting[0] for waiting in mine[0])
    )


@pytest.mark.parametrize("packing", [pack, pack_purely])
def test_a_call_has_bounds(packing: Any) -> None:
    queue: list[WaitingChange] = [
        (Change(f"{at}", None, {f"{at}": b"x" * 1000}), done) for at in range(50)
    ]
    assert len(taken(packing, queue, 20, 1 << 20, None)[0]) == 20
    # The bytes are those of the values, about: no change more once they are there.
    assert 5 <= len(taken(packing, queue, 20, 5_000, None)[0]) <= 6


@pytest.mark.parametrize("packing", [pack, pack_purely])
def test_no_two_changes_of_a_call_share_a_key(packing: Any) -> None:
    first, second = Change("a", None, {"a": b"1", "b": b"2"}), Change("b", None, {"b": b"3"})
    group, left, words = taken(packing, [(first, done), (second, done)], 9, 999, None)
    assert (len(group), len(left)) == (1, 1)
    assert words[:4] == [b"3", RECORD, b"p\xc3\xa4:a", b"p\xc3\xa4:b"]
    assert words[4:] == [b"7", b"600000", b"0", b"2", b"ngs.", b"1", b"2"]


@pytest.mark.parametrize("packing", [pack, pack_purely])
def test_keys_of_large_values_follow_those_that_are_read(packing: Any) -> None:
    small, large = b"x" * 512, b"x" * 513
    queue: list[WaitingChange] = [
        (Change("a", Guard.ANY, {"a": large, "b": large, "c": small}), done),
        (Change("d", large, {"d": None, "e": None, "f": small}), done),
        (Change("g", Guard.ANY, {"g": small}), done),
    ]
    words = taken(packing, queue, 9, 1 << 20, None)[2]
    keys = [word.removeprefix(b"p\xc3\xa4:") for word in words[2:9]]
    assert keys == [b"c", b"d", b"f", b"g", b"a", b"b", b"e"]
    assert words[12:14] == [b"4", b"AgRs.vdXs.ag."]


def test_large_values_pass_whole() -> None:
    value = bytes(range(256)) * 4_000
    change = Change("k" * 5_000, value, {"k" * 5_000: value, "e": value, "f": value + b"x"})
    both = [taken(twin, [(change, done)], 9, 1 << 30, None) for twin in (pack, pack_purely)]
    assert both[0] == both[1]
    assert both[0][2][-2:] == [value, value + b"x"]


@given(names, st.none() | st.binary() | st.just(Guard.ANY), puts)
def test_changes_are_made_alike(guard: str, expected: Any, puts: Any) -> None:
    made = change_of(guard, expected, puts)
    assert made == Change(guard, expected, puts)
    assert type(made) is Change
    assert made.puts is puts


def test_changes_hold_what_is_in_them_once() -> None:
    """Made past Python, one reference too few would be a crash, and one too many a leak."""
    guard, expected = str(b"guard", "ascii"), bytes(bytearray(b"expected"))
    puts: dict[str, bytes | None] = {"key": b"value"}
    before = [sys.getrefcount(each) for each in (guard, expected, puts)]
    changes = [change_of(guard, expected, puts) for _ in range(1000)]
    held = [sys.getrefcount(each) for each in (guard, expected, puts)]
    assert held == [count + 1000 for count in before]
    gc.collect()
    assert changes[0] == (guard, expected, puts)
    del changes
    assert [sys.getrefcount(each) for each in (guard, expected, puts)] == before
