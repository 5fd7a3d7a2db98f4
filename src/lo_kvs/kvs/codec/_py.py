"""The codec in pure Python, with the same results as the compiled one, for use without a compiler.

orjson does the encoding and decoding here too. A check before it passes values that orjson would
refuse or change to `_write` and `_read`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from math import isfinite
from typing import Any, Final, cast

import orjson

from lo_kvs.kvs.codec._read import read
from lo_kvs.kvs.codec._write import DEPTH_MAX, NOT_PLAIN, Json, exactly, write

_TEXT = frozenset({str})
# orjson itself refuses the integers and strings that it cannot write.
_HARMLESS = frozenset({type(None), bool, int, str})

# Maps every digit to "0" and every other byte to a blank: two passes in C find a long run.
_DIGITS_TO_ZERO = bytes(0x30 if 0x30 <= byte <= 0x39 else 0x20 for byte in range(256))
_LONG_RUN = b"0" * 19
# The tokens that matter for cutting a container: strings (to skip), brackets and commas.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("?)|[\[{\]},]', re.DOTALL)
#: Results of `end_of_members`: no member ends within the limit; the container is not closed.
NO_END: Final = -1
UNCLOSED: Final = -2
# An integer literal of 19 digits or more, in a position where a value may be.
_LONG_INTEGER = re.compile(rb"(?<![^\s\[,:])-?[0-9]{19,}(?=[\s,\]}]|\Z)")


def encode(value: object, /) -> bytes:
    """`value` as compact UTF-8 JSON text. Raises NotJSON, with the path of the invalid part."""
    return encode_state(value)[0]


def encode_plain(value: object, /) -> bytes:
    """The text of a value that `plain_copy` returned: nothing is checked again."""
    return exactly(orjson.dumps(value))


def encode_state(value: object, /) -> tuple[bytes, bool]:
    """The text, and whether `value` is plain: whether the text decodes to an equal value with
    the same types everywhere. It is not plain if anything was converted.

    Raises NotJSON, with the path of the invalid part.
    """
    if _is_plain(value):
        try:
            return exactly(orjson.dumps(value)), True
        except orjson.JSONEncodeError:
            return write(value)
    return write(value)


def decode(data: bytes, /) -> Json:
    """The value of JSON text. Raises ValueError, with the reason, if it is not valid JSON."""
    if type(data) is not bytes:
        raise TypeError(f"expected bytes, got {type(data).__name__}")
    if _LONG_RUN in data.translate(_DIGITS_TO_ZERO) and _has_big_integer(data):
        return read(data)
    try:
        return cast(Json, orjson.loads(data))
    except orjson.JSONDecodeError:
        return read(data)


def end_of_members(data: bytes, at: int, most: int, /, *, first: bool = False) -> int:
    """The end of the last member that ends before `at + most`, in the array or object that
    contains `at`: the position of a comma, or of the closing bracket.

    first  return the end of the first member instead

    NO_END if no member ends that early, UNCLOSED if the text ends first.
    """
    depth = 0
    last = NO_END
    for token in _TOKEN.finditer(data, at):
        start = token.start()
        if start - at > most:
            return last
        mark = data[start]
        if mark == ord('"'):
            if not token.group(1):  # the text does not end
                return UNCLOSED
        elif mark in b"[{":
            depth += 1
        elif mark == ord(",") and not depth:
            last = start
            if first:
                return last
        elif mark in b"]}":
            if not depth:
                return start
            depth -= 1
    return UNCLOSED


def plain_copy(value: object, /) -> Any:
    """A copy of `value` that shares no mutable part with it, if encoding and decoding certainly
    changes nothing. Otherwise NOT_PLAIN, for example for strings with lone surrogates and for
    integers over 64 bits.
    """
    return _copied(value, 0)


def _copied(value: object, depth: int) -> object:
    kind = type(value)
    if kind is not dict and kind is not list:
        return value if _is_settled(value) else NOT_PLAIN
    if depth >= DEPTH_MAX:
        return NOT_PLAIN
    members: Iterable[object]
    if kind is dict:
        items = dict(cast(dict[object, object], value))  # other threads may change it
        if not all(type(key) is str and _is_settled(key) for key in items):
            return NOT_PLAIN
        members = items.values()
    else:
        members = cast(list[object], value)
    copies = [m if _is_settled(m) else _copied(m, depth + 1) for m in members]
    if any(copy is NOT_PLAIN for copy in copies):
        return NOT_PLAIN
    return dict(zip(items, copies, strict=True)) if kind is dict else copies


def _is_settled(value: object) -> bool:
    """Whether a scalar certainly decodes to itself."""
    kind = type(value)
    if kind is str:
        return _is_whole(cast(str, value))
    if kind is int:
        return -(2**63) <= cast(int, value) < 2**63
    return value is None or kind is bool or (kind is float and isfinite(cast(float, value)))


def _is_whole(text: str) -> bool:
    """Whether the string has no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(value: object) -> bool:
    """Whether orjson can encode `value`: exact plain types, finite floats, not too deep."""
    todo: list[tuple[Collection[object], int]] = [((value,), 0)]
    while todo:
        members, depth = todo.pop()
        if _HARMLESS.issuperset(map(type, members)):
            continue
        for member in members:
            kind = type(member)
            if kind in _HARMLESS:
                continue
            if kind is float:
                if not isfinite(cast(float, member)):
                    return False
                continue
            if depth == DEPTH_MAX:
                return False
            if kind is dict:
                items = cast(dict[object, object], member)
                # Copies in lists, because other threads may change it.
                if not _TEXT.issuperset(map(type, list(items))):
                    return False
                todo.append((list(items.values()), depth + 1))
            elif kind is list:
                todo.append((cast(list[object], member), depth + 1))
            else:
                return False
    return True


def _has_big_integer(data: bytes) -> bool:
    """Whether an integer in `data` has more than 64 bits: orjson would read a float."""
    for found in _LONG_INTEGER.finditer(data):
        literal = found.group()
        if len(literal) > 20 or not -(2**63) <= int(literal) < 2**64:
            return True
    return False
