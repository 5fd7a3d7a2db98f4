"""Hostile and unusual keys and values, as data for the contract tests."""

# Letters that look like others are what this is about.
# ruff: noqa: RUF001

from __future__ import annotations

import datetime as dt
import decimal
import enum
from collections import OrderedDict, defaultdict
from typing import Any, Final, NamedTuple

from lo_kvs.kvs.codec import DEPTH_MAX

#: Every one of these is a key, and no two of them are the same one.
KEYS: Final = [
    # Nothing much, and what looks like it.
    "", " ", "  ", "\0", "a\0b", "\n", "\r\n", "\t", "\x7f", "\x1b[0m",
    # Paths.
    ".", "..", "...", "../x", "../../../../etc/passwd", "/etc/passwd", "/", "//", "a//b",
    "/a", "a/",
    "a/b", "a/./b", "a/../b", "foo", "_foo", "__foo", "foo/bar", "_foo/bar", "foo/_bar", "_/bar",
    "foo/", "_foo/", "_", "__", "__lokvs", "~", "~root", "-rf", ".hidden", "a.", "a./b",
    "a\\b", "\\",
    "/" * 40, "x/" * 60 + "x",
    # Names of a store's own files.
    "a.json", "a.json.json", "a", "a.key", ".json", ".key", ".lo_kvs", ".lo_kvs/format.json",
    ".lo_kvs/locks/00", "_.lo_kvs/format", "lo_kvs", "format.json", "tmp", "journal",
    # Devices elsewhere.
    "con", "CON", "Con", "nul", "NUL.txt", "nul.txt", "aux", "prn", "com1", "LPT9", "con/con",
    # What escapes are made of.
    "%", "%%", "%41", "%00", "%2f", "%2F", "A", "^", "^^", "^a", "^A", "%5e", "+", "=", "@", "~1",
    # Patterns, quotes, hash tags, protocol.
    "*", "**", "?", "[a-z]", "[", "]", "[^a]", "{tag}", "a{tag}b", "{}", "{", "`id`", "$HOME",
    "'", '"', "<locals>", "|", ":", ";", "$3\r\nfoo\r\n", "*1\r\n$8\r\nFLUSHALL\r\n",
    # Keys that the system has.
    "Internal,writing.reconstruct,EventField.doc_id:D,STUDENT:S",
    "internal,writing.reconstruct,EventField.doc_id:D,STUDENT:S",
    "External,m.make.<locals>.reducer,STUDENT:[guest]", "NLP_CACHE_3f2a",
    "email-studentID-mapping:a@b",
    '{"function": "roster", "args": [1, null]}',
    # Letters that are, or are nearly, one letter.
    "Foo", "FOO", "fOO", "é", "e\u0301", "É", "E\u0301", "Å", "\u212b", "A\u030a", "K", "\u212a",
    "k", "ß", "ẞ", "ss", "SS", "ſ", "s", "S", "ı", "i", "I", "İ", "i\u0307", "ﬁ", "fi", "Ⅷ", "ⅷ",
    "\u1100\u1161", "가", "ς", "σ", "Σ", "x\u0323\u0307", "x\u0307\u0323",
    # The corners of Unicode.
    "\u00a0", "\u00ad", "\u200b", "\u200d", "\u202e", "\u2028", "\u2029", "\ufeff", "\ufffd",
    "\ufffe",
    "\uffff", "\ud7ff", "\ue000", "\U00010000", "\U0001f469\u200d\U0001f4bb", "\U0010ffff",
    "日本語", "עברית", "العربية", "ไทย", "\u0301", "٣", "3", "³",
    # Lengths around the limits of file systems, and far beyond.
    *("n" * length for length in (234, 235, 236, 240, 250, 251, 254, 255, 256, 1_023, 1_024,
    10_000)),
    "N" * 127, "N" * 255, "é" * 85, "é" * 86, "é" * 128, "é" * 5_000, "d/" * 5_000,
    "long/" + "n" * 300,
    "n" * 300 + "/x", "日" * 3_333 + "x",
]  # fmt: skip

#: None of these is a key: no text, no UTF-8 form, or kept for the store itself.
NO_KEYS: Final[list[Any]] = [
    None,
    5,
    1.5,
    True,
    b"bytes",
    ("a",),
    "\ud800",
    "a\udfffb",
    "\udc80",
    "\ud83d\ude00",  # the two halves of one character, as two
    "__lokvs:",
    "__lokvs:writer:0",
]

#: JSON, to come back as it is.
VALUES: Final[list[Any]] = [
    None, True, False, 0, 1, -1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**40,
    0.0, -0.0, 0.1, 1.0, 1e300, 5e-324, 1.7976931348623157e308, 2.0**53,
    "", "text", "\0", "\x1f\x7f", '"\\/', "é", "e\u0301", "\u2028", "\ufeff", "\U0001f600",
    "\ud800",
    [], {}, [[]], [{}], {"": {}}, {"a": []}, [None, [None, {"a": None}]], {"b": 1, "a": 2},
    {"\0": 0, "é": 1, "e\u0301": 2, "\ud800": 3}, [[[[[[[[[[1]]]]]]]]]], list(range(100)),
    {"students": [{"name": "S1", "score": 3.0, "big": 2**70}]}, "null", "false", False,
]  # fmt: skip


class Level(enum.IntEnum):
    """Is an int, and has a name of its own."""

    HIGH = 3


class Point(NamedTuple):
    """Is a tuple, and has names in it."""

    x: int
    y: int


class Text(str):
    """A str that is none of the plain ones."""

    __slots__ = ()


#: What json.dumps converts on the way.
CONVERTED: Final[list[Any]] = [
    (),
    (1, 2),
    [(1, (2,))],
    {"a": (1, 2)},
    {1: "a", -2: "b"},
    {1.5: "a"},
    {True: 1, None: 2},
    {"a": {2: {3: 4}}},
    Point(1, 2),
    {"p": Point(1, 2)},
    Level.HIGH,
    {Level.HIGH: Level.HIGH},
    Text("a"),
    {Text("k"): Text("v")},
    OrderedDict(b=1, a=2),
    defaultdict(list, a=[1]),
]

_CYCLE: Final[list[Any]] = []
_CYCLE.append(_CYCLE)
_DEEP: Final[list[Any]] = []
for _ in range(DEPTH_MAX + 1):
    _DEEP[:] = [_DEEP.copy()]

#: What is no JSON, and nothing that json.dumps would make JSON of without damage.
REFUSED: Final[list[Any]] = [
    float("nan"),
    float("inf"),
    {"a": [1, {"b": -float("inf")}]},
    {float("nan"): 1},
    {1, 2},
    frozenset(),
    b"bytes",
    bytearray(b"bytes"),
    object(),
    Ellipsis,
    1j,
    decimal.Decimal("1.5"),
    dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    {(1, 2): 3},
    {b"a": 1},
    {1: "a", "1": "b"},
    {None: "a", "null": "b"},
    iter([1]),
    {"a": 1}.keys(),
    len,
    _CYCLE,
    _DEEP,
]
