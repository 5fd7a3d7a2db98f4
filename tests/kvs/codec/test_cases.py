"""The codec's cases as a table: values with their bytes, and refused values with their path."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import uuid
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from lo_kvs.kvs.codec import DEPTH_MAX, NOT_PLAIN
from lo_kvs.kvs.errors import NotJSON


class Level(enum.IntEnum):
    LOW = 1


class Colour(str, enum.Enum):  # noqa: UP042 - the older form, as reducers have it
    RED = "red"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "overridden"


class Number(int):
    def __repr__(self) -> str:
        return "overridden"


class Float64(float):
    """As numpy's float64 is: a subclass of float with a repr of its own."""

    def __repr__(self) -> str:
        return "np.float64(...)"


class Doubling(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([member for member in super().__iter__() for _ in (0, 1)])


class Relabelled(dict[Any, Any]):
    def items(self) -> Any:
        return [(f"new {key}", value) for key, value in super().items()]


class Pairless(dict[Any, Any]):
    def items(self) -> Any:
        return ["ab"]


class Twofold(dict[Any, Any]):
    def items(self) -> Any:
        return [("a", 1), ("a", 2)]


@dataclasses.dataclass
class Score:
    value: int


Point = namedtuple("Point", "x y")  # noqa: PYI024 - the untyped form is what reducers return

# Value, text. These are plain: they come back equal and of the same types.
PLAIN: list[tuple[Any, bytes]] = [
    (None, b"null"),
    (True, b"true"),
    (False, b"false"),
    (0, b"0"),
    (-1, b"-1"),
    (2**53 + 1, b"9007199254740993"),
    (2**63 - 1, b"9223372036854775807"),
    (-(2**63), b"-9223372036854775808"),
    (2**64 - 1, b"18446744073709551615"),
    (2**64, b"18446744073709551616"),
    (-(2**63) - 1, b"-9223372036854775809"),
    (
        [1, [10**30, -(10**25)]],
        b"[1,[1000000000000000000000000000000,-10000000000000000000000000]]",
    ),
    (0.0, b"0.0"),
    (-0.0, b"-0.0"),
    (0.1, b"0.1"),
    (1.0, b"1.0"),
    (5e-324, b"5e-324"),
    ("", b'""'),
    ("plain", b'"plain"'),
    ('\x00\x1f"\\/\n\x7f', b'"\\u0000\\u001f\\"\\\\/\\n\x7f"'),
    ("é 語 😀", '"é 語 😀"'.encode()),
    ("\ud800", b'"\\ud800"'),
    ("\udc00\ud800", b'"\\udc00\\ud800"'),
    ({"\udfff": "é\ud800"}, '{"\\udfff":"é\\ud800"}'.encode()),
    ("118044123456789012345", b'"118044123456789012345"'),
    ([], b"[]"),
    ({}, b"{}"),
    ([[], {}], b"[[],{}]"),
    ({"": 0}, b'{"":0}'),
    ({"b": 1, "a": [None, {"c": 2.5}]}, b'{"b":1,"a":[null,{"c":2.5}]}'),
]

# Value, text. These are converted as json.dumps converts them.
CONVERTED: list[tuple[Any, bytes]] = [
    ((), b"[]"),
    ((1, (2,)), b"[1,[2]]"),
    (Point(1, 2), b"[1,2]"),
    ({1: "a"}, b'{"1":"a"}'),
    ({1.5: 0, -0.0: 1}, b'{"1.5":0,"-0.0":1}'),
    ({1e16: 0}, b'{"1e+16":0}'),
    ({True: 0, False: 1, None: 2}, b'{"true":0,"false":1,"null":2}'),
    ({2**70: 0}, b'{"1180591620717411303424":0}'),
    ({Level.LOW: Level.LOW}, b'{"1":1}'),
    ({Colour.RED: Colour.RED}, b'{"red":"red"}'),
    ({Text("k"): Text("v")}, b'{"k":"v"}'),
    ({Text("k"): 1}, b'{"k":1}'),
    ({Number(7): Number(8)}, b'{"7":8}'),
    (Number(2**70), b"1180591620717411303424"),
    ([Float64(1.5), {Float64(2.5): 0}], b'[1.5,{"2.5":0}]'),
    (defaultdict(int, a=1), b'{"a":1}'),
    (OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
    (Counter("aab"), b'{"a":2,"b":1}'),
    (Doubling([1, 2]), b"[1,1,2,2]"),
    (Relabelled(a=1), b'{"new a":1}'),
    (Pairless(), b"{}"),
    ("\ud83d\ude00", '"😀"'.encode()),
    ({"\ud83d\ude00": ["\ud800\ud83d\ude00"]}, '{"😀":["\\ud800😀"]}'.encode()),
]

TOO_LONG = 10**5000
INTEGER_LIMIT = "the integer is longer than sys.set_int_max_str_digits() allows"

# Value, place, reason.
REFUSED: list[tuple[Any, str, str]] = [
    (float("nan"), "$", "NaN is not JSON"),
    (float("inf"), "$", "Infinity is not JSON"),
    ([0, -float("inf")], "$[1]", "-Infinity is not JSON"),
    (Float64("nan"), "$", "NaN is not JSON"),
    ({"students": [0, 1, 2, {"score": float("nan")}]}, "$.students[3].score", "NaN is not JSON"),
    ({"a b": {"": [set()]}}, "$['a b'][''][0]", "set is not JSON"),
    ({"a": ({1: b"x"},)}, "$.a[0]['1']", "bytes is not JSON"),
    (bytearray(b"x"), "$", "bytearray is not JSON"),
    (frozenset(), "$", "frozenset is not JSON"),
    (range(3), "$", "range is not JSON"),
    ({}.keys(), "$", "dict_keys is not JSON"),
    (1j, "$", "complex is not JSON"),
    (object, "$", "type is not JSON"),
    (decimal.Decimal(1), "$", "decimal.Decimal is not JSON"),
    (dt.date(2024, 1, 1), "$", "datetime.date is not JSON"),
    (dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "$", "datetime.datetime is not JSON"),
    (uuid.UUID(int=0), "$", "uuid.UUID is not JSON"),
    ([Score(1)], "$[0]", f"{__name__}.Score is not JSON"),
    (mock.Mock(spec=str), "$", "unittest.mock.Mock is not JSON"),
    ({"a": {b"x": 1}}, "$.a", "a key of type bytes is not JSON"),
    ({(1, TOO_LONG): 1}, "$", "a key of type tuple is not JSON"),
    ([{float("nan"): 1}], "$[0]", "the key NaN is not JSON"),
    ({-float("inf"): 1}, "$", "the key -Infinity is not JSON"),
    ({1: 0, "1": 0}, "$", "two keys convert to the same text, '1'"),
    ({"a": {None: 0, "null": 0}}, "$.a", "two keys convert to the same text, 'null'"),
    ({"\ud83d\ude00": 0, "😀": 0}, "$", "two keys convert to the same text, '😀'"),
    (Twofold(a=1), "$", "two keys convert to the same text, 'a'"),
    (Pairless(a=1), "$", f"the items() of {__name__}.Pairless are not pairs"),
    ({"n": TOO_LONG}, "$.n", INTEGER_LIMIT),
    ({TOO_LONG: 1}, "$", INTEGER_LIMIT),
]


def kinds(value: Any) -> Any:
    """`value` with the type of everything in it; the sign of a zero counts."""
    if isinstance(value, dict):
        members = [(kinds(key), kinds(member)) for key, member in value.items()]
        return type(value), members
    if isinstance(value, list | tuple):
        return type(value), [kinds(member) for member in value]
    return type(value), repr(value) if type(value) is float else value


@pytest.mark.parametrize(("value", "text"), PLAIN, ids=ascii)
def test_a_plain_value(codec: ModuleType, value: Any, text: bytes) -> None:
    assert codec.encode(value) == text
    assert codec.encode_state(value) == (text, True)
    assert kinds(codec.decode(text)) == kinds(value)


@pytest.mark.parametrize(("value", "text"), CONVERTED, ids=ascii)
def test_a_converted_value(codec: ModuleType, value: Any, text: bytes) -> None:
    assert codec.encode(value) == text
    assert codec.encode_state(value) == (text, False)
    assert kinds(codec.decode(text)) == kinds(json.loads(json.dumps(value)))


# The ids are spelled out because pytest, like isinstance, is taken in by the mock.
@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [pytest.param(*case, id=ascii(f"{case[1]} {case[2]}")) for case in REFUSED],
)
def test_a_refused_value(codec: ModuleType, value: Any, path: str, reason: str) -> None:
    for write in (codec.encode, codec.encode_state):
        with pytest.raises(NotJSON) as caught:
            write(value)
        assert (caught.value.path, caught.value.reason) == (path, reason)


def nested(depth: int, kind: type[Any]) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"a": value} if kind is dict else kind([value])
    return value


@pytest.mark.parametrize("kind", [list, dict, tuple])
def test_depth(codec: ModuleType, kind: type[Any]) -> None:
    deepest = nested(DEPTH_MAX, kind)
    assert codec.decode(codec.encode(deepest)) == json.loads(json.dumps(deepest))
    for too_deep in (nested(DEPTH_MAX + 1, kind), nested(50_000, kind)):
        with pytest.raises(NotJSON, match=f"nested more than {DEPTH_MAX} deep") as caught:
            codec.encode(too_deep)
        assert len(caught.value.path) < 100


def test_depth_of_an_empty_container(codec: ModuleType) -> None:
    inside: list[Any] = []
    for _ in range(DEPTH_MAX - 1):
        inside = [inside]
    assert codec.encode(inside) == b"[" * DEPTH_MAX + b"]" * DEPTH_MAX
    with pytest.raises(NotJSON):
        codec.encode([inside])


def test_a_cycle(codec: ModuleType) -> None:
    cycle: dict[str, Any] = {"list": [1]}
    cycle["list"].append(cycle)
    cycle["list"].append(cycle)
    with pytest.raises(NotJSON) as caught:
        codec.encode(cycle)
    assert caught.value.reason == "the value contains itself, which JSON does not allow"
    assert caught.value.path in {"$.list[1]", "$.list[2]"}


def test_repeated_part_is_not_a_cycle(codec: ModuleType) -> None:
    part = [1]
    assert codec.encode_state({"a": part, "b": [part, part]}) == (b'{"a":[1],"b":[[1],[1]]}', True)


COPIED: list[Any] = [
    None,
    True,
    1,
    1.5,
    "x",
    "\xe9",
    [],
    {},
    [1, "x", None],
    {"a": 1, "b": 2.5},
    -(2**63),
]
COPIED += ["\u201c", {"\u201c": "\U0001f600"}, "\ud7ff", ["\ue000\U0010ffff"]]
COPIED += [[[]], [1, {}], {"a": []}, {"a": {"b": [{}]}}, [[1, [2]], {"c": [3]}]]
UNSURE: list[Any] = [(), (1,), [(1,)], {"a": [{1: 2}]}, [Level.LOW], Text("x"), [Text("x")]]
UNSURE += [defaultdict(int), {Colour.RED: 1}, {(1,): 1}, object(), Doubling(), b"x", {1}, 2**63]
UNSURE += [float("nan"), [float("inf")], "\ud800", {"\udfff": 1}, ["\U0001f600\ud83d"]]


@pytest.mark.parametrize("value", COPIED, ids=repr)
def test_a_plain_copy(codec: ModuleType, value: Any) -> None:
    copy = codec.plain_copy(value)
    assert copy == value
    assert type(copy) is type(value)
    assert copy is not value or not isinstance(value, (dict, list))


@pytest.mark.parametrize("value", UNSURE, ids=lambda value: type(value).__name__)
def test_value_that_may_not_be_plain(codec: ModuleType, value: Any) -> None:
    assert codec.plain_copy(value) is NOT_PLAIN
