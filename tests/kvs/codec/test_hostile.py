"""Hostile values are written exactly, or refused with `NotJSON`."""

from __future__ import annotations

import enum
import json
import sys
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from types import FrameType, ModuleType
from typing import Any

import pytest

from lo_kvs.kvs.codec import DEPTH_MAX, NOT_PLAIN, values
from lo_kvs.kvs.codec._read import DEPTH_READ_MAX
from lo_kvs.kvs.errors import CorruptValue, KVSError, NotJSON


def nested(leaf: Any, depth: int = DEPTH_MAX) -> Any:
    for at in range(depth):
        leaf = [leaf] if at % 2 else {"a": leaf}
    return leaf


def deep_in_the_stack(call: Callable[[], Any], left: int) -> Any:
    """Call from where so many frames are left until Python's limit."""
    frame: FrameType | None = sys._getframe()
    used = 0
    while frame is not None:
        frame, used = frame.f_back, used + 1

    def down(levels: int) -> Any:
        return call() if levels == 0 else down(levels - 1)

    return down(sys.getrecursionlimit() - used - left)


LEAVES = [1, 2**64, -(2**63) - 1, 10**4_000, "\ud83d", {"\udc00": 2**70}, ["x", 1.5, None, True]]


@pytest.mark.parametrize("left", [30, 60, 120, 240, 480])
@pytest.mark.parametrize("leaf", LEAVES, ids=[ascii(leaf)[:20] for leaf in LEAVES])
def test_depth_of_the_callers_stack_changes_nothing(
    codec: ModuleType, leaf: Any, left: int
) -> None:
    value = nested(leaf, DEPTH_MAX - 1)
    text = deep_in_the_stack(lambda: codec.encode(value), left)
    assert text == codec.encode(value)
    found = deep_in_the_stack(lambda: codec.decode(text), left)
    assert codec.encode(found) == text  # compared without recursion


@pytest.mark.parametrize("left", [30, 120, 480])
def test_refused_value_on_a_deep_stack(codec: ModuleType, left: int) -> None:
    for value in (nested(float("nan"), 200), nested({1, 2}), nested(1, DEPTH_MAX + 1)):
        with pytest.raises(NotJSON):
            deep_in_the_stack(lambda value=value: codec.encode(value), left)  # type: ignore[misc]
    for text in (b"[" * 2_000 + b"]" * 2_000, b"[" * 1_000, b'{"a":' * 900 + b"x"):
        with pytest.raises(ValueError, match=r"nested|Expecting"):
            deep_in_the_stack(lambda text=text: codec.decode(text), left)  # type: ignore[misc]


def test_old_text_is_written_back_from_a_deep_stack() -> None:
    for text in (
        b"[" * DEPTH_READ_MAX + b"]" * DEPTH_READ_MAX,
        b'[{"a":' * 400 + b"NaN" + b"}]" * 400,
    ):
        value = values.decode("key", text)
        assert deep_in_the_stack(lambda value=value: values.encode_old(value), 60) == text  # type: ignore[misc]
    old = values.decode("key", b'[NaN, Infinity, -Infinity, 1e400, -0.0, "\\ud800"]')
    assert values.encode_old(old) == b'[NaN,Infinity,-Infinity,Infinity,-0.0,"\\ud800"]'


@pytest.mark.parametrize("digits", [19, 20, 40, 4_299, 4_300])
def test_integers_that_python_writes(codec: ModuleType, digits: int) -> None:
    for value in (10**digits - 1, -(10**digits) + 1):
        for whole in (value, [value], {"a": [value, 1.5]}):
            assert codec.decode(codec.encode(whole)) == whole
            assert json.loads(codec.encode(whole)) == whole


@pytest.mark.parametrize("digits", [4_301, 100_000])
def test_integers_that_are_too_long(codec: ModuleType, digits: int) -> None:
    value = 10**digits - 1
    for whole in (value, [value], {"a": value}, {value: 1}, nested(-value, 100)):
        with pytest.raises(NotJSON, match=r"set_int_max_str_digits"):
            codec.encode(whole)
        assert codec.plain_copy(whole) is NOT_PLAIN
    text = b"[" + b"9" * digits + b"]"
    with pytest.raises(ValueError, match=r"set_int_max_str_digits"):
        codec.decode(text)
    with pytest.raises(CorruptValue, match="'key'"):
        values.decode("key", text)


# -- objects that do odd things ------------------------------------------------------------


class OwnItems(dict[Any, Any]):
    """Answers `items()` with whatever it was made with."""

    def __init__(self, answer: Any) -> None:
        super().__init__(a=1)
        self.answer = answer

    def items(self) -> Any:
        return self.answer


class OwnMembers(list[Any]):
    def __iter__(self) -> Any:
        return 5


class Untrue:
    """Has neither a truth nor a text, and is equal to nothing."""

    def __bool__(self) -> bool:
        raise LookupError("it has no truth")

    def __eq__(self, other: object) -> bool:
        raise LookupError("it is not compared")

    def __hash__(self) -> int:
        return 1

    def __repr__(self) -> str:
        raise LookupError("it has no text")


class Text(str):
    """Hides its text behind every method that a writer may call."""

    __slots__ = ()

    def __str__(self) -> str:
        return "other"

    def __eq__(self, other: object) -> bool:
        raise LookupError

    def __hash__(self) -> int:
        return 7

    def isascii(self) -> bool:
        raise LookupError

    def encode(self, *_: Any, **__: Any) -> bytes:
        raise LookupError


class Number(int):
    def __int__(self) -> int:
        raise LookupError

    def __repr__(self) -> str:
        raise LookupError

    def bit_length(self) -> int:
        raise LookupError


class Real(float):
    def __float__(self) -> float:
        raise LookupError

    def __repr__(self) -> str:
        raise LookupError

    def __gt__(self, other: object) -> bool:
        raise LookupError


class Colour(str, enum.Enum):  # noqa: UP042 - the older form
    RED = "red"


class Size(enum.IntEnum):
    LARGE = 2**70


class Claims:
    """Says that it is a dict."""

    __class__ = dict  # type: ignore[assignment]


REFUSED: list[Any] = [
    OwnItems(5), OwnItems(None), OwnItems([1, 2]), OwnItems(["ab"]), OwnItems([("a",)]),
    OwnItems([("a", 1, 2)]), OwnItems([(Untrue(), 1)]), OwnMembers([1]), Untrue(), Claims(),
    Decimal("1.5"), Decimal("NaN"), Fraction(1, 3), float("nan"), Real("nan"), Real("-inf"),
    {Real("inf"): 1}, {Untrue(): 1}, {b"a": 1}, {(): 1}, {Decimal(1): 1}, b"bytes", bytearray(b"x"),
    memoryview(b"x"), range(3), slice(1), type, NotImplemented, enum.Enum, {1: 1, "1": 2},
    {"a": {Number(1): 1, "1": 1}},
]  # fmt: skip

WRITTEN: list[tuple[Any, bytes]] = [
    (OwnItems([("b", 2), (None, 3)]), b'{"b":2,"null":3}'),
    (OwnItems({"b": [1]}.items()), b'{"b":[1]}'),
    ([Text("text"), {Text("key"): Text("\ud800")}], b'["text",{"key":"\\ud800"}]'),
    ([Number(5), {Number(6): Number(2**70)}], b'[5,{"6":1180591620717411303424}]'),
    ([Real(-0.0), {Real(1.5): Real(5e-324)}], b'[-0.0,{"1.5":5e-324}]'),
    ({Colour.RED: Colour.RED}, b'{"red":"red"}'),
    ({Size.LARGE: Size.LARGE}, b'{"1180591620717411303424":1180591620717411303424}'),
    ({True: 1, None: 2, -0.0: 3}, b'{"true":1,"null":2,"-0.0":3}'),
    ([2**64, "\ud83d\ude00", {"": {}}, [], [[]], -0.0, 1e22],
     b'[18446744073709551616,"\xf0\x9f\x98\x80",{"":{}},[],[[]],-0.0,1e22]'),
]  # fmt: skip


@pytest.mark.parametrize("value", REFUSED, ids=range(len(REFUSED)))
def test_refused(codec: ModuleType, value: Any) -> None:
    for whole in (value, [value], {"a": value}, [2**64, {"b": [value]}]):
        with pytest.raises(NotJSON) as error:
            codec.encode(whole)
        assert str(error.value).startswith("$")
        with pytest.raises(NotJSON):
            values.encode("key", whole)


@pytest.mark.parametrize(("value", "text"), WRITTEN, ids=range(len(WRITTEN)))
def test_written(codec: ModuleType, value: Any, text: bytes) -> None:
    written = codec.encode(value)
    assert json.loads(written) == json.loads(text)
    assert written.replace(b"1e+22", b"1e22") == text
    assert codec.plain_copy(value) is NOT_PLAIN or codec.encode(codec.plain_copy(value)) == text


def test_cycles_are_named(codec: ModuleType) -> None:
    a: Any = []
    b: Any = {"a": a, "big": 2**64}
    a.append(b)
    for value in (a, b, [a], {"x": [b, a]}):
        with pytest.raises(NotJSON, match="contains itself"):
            codec.encode(value)


def own_error() -> Iterator[Any]:
    yield ("a", 1)
    raise LookupError("the caller's own")


def test_callers_own_errors_come_through(codec: ModuleType) -> None:
    for value in (OwnItems(own_error()), [1, {"a": OwnItems(own_error())}]):
        with pytest.raises(LookupError, match="the caller's own"):
            codec.encode(value)


def test_value_that_another_thread_changes(codec: ModuleType) -> None:
    """What is written is some state of it, or `NotJSON`; no foreign error."""
    shared: dict[str, Any] = {"list": [2**64], "map": {"\ud800": 1}}
    ended = threading.Event()

    def change() -> None:
        at = 0
        while not ended.is_set():
            at += 1
            shared["map"][f"key {at % 50}"] = {"n": at}
            shared["map"].pop(f"key {(at * 7) % 50}", None)
            shared["list"].append(at)
            if len(shared["list"]) > 50:
                del shared["list"][:25]

    thread = threading.Thread(target=change)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread.start()
    try:
        for _ in range(500):
            try:
                assert set(codec.decode(codec.encode(shared))) == {"list", "map"}
            except KVSError:
                continue
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(interval)
