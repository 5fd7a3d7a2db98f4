"""Decode a large text in pieces, so that other tasks can run in between.

orjson decodes 10 MB in one call and holds the GIL, so threads do not help. So a large array or
object is cut at its commas into pieces of whole members, and each piece is decoded by itself. A
member that is larger than a piece is cut in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

from lo_kvs.kvs.codec import Json, decode, end_of_members
from lo_kvs.kvs.codec._py import NO_END, UNCLOSED

#: The size of a piece: a few milliseconds. A smaller text is decoded in one call.
PIECE_BYTES: Final = 512 * 1024

#: The maximum nesting level at which members are cut.
LEVELS_MAX: Final = 16

_BLANKS = re.compile(rb"[ \t\n\r]*")
_KEY = re.compile(rb'[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)


class _Irregular(Exception):
    """The text cannot be cut, perhaps because it is not valid JSON: decode it in one call."""


def decode_pieces(data: bytes) -> Generator[None, None, Json]:
    """Returns `decode(data)`; yields after each piece. Raises ValueError."""
    if len(data) > PIECE_BYTES:
        try:
            return (yield from _Cut(data).value())
        except (_Irregular, ValueError):  # decoding the whole text gives the proper error
            yield
    return decode(data)


class _Cut:
    """One large text, cut from start to end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self) -> Generator[None, None, Json]:
        value = yield from self._container(0)
        if _blanks(self._data, self._at) != len(self._data):
            raise _Irregular
        return value

    def _container(self, depth: int) -> Generator[None, None, Json]:
        """The array or object that starts here, inside `depth` others."""
        data = self._data
        self._at = _blanks(data, self._at)
        opening = data[self._at : self._at + 1]
        if opening not in (b"[", b"{"):
            raise _Irregular
        self._at += 1
        array: list[Json] = []
        mapping: dict[str, Json] = {}
        first = True
        while True:
            end = self._end_of_piece()
            if end is None:  # the next member alone is larger than a piece
                key = self._key() if opening == b"{" else None
                member = yield from self._member(depth)
                if key is None:
                    array.append(member)
                else:
                    mapping[key] = member
                self._at = _blanks(data, self._at)
            else:
                inside = _decoded(opening, data[self._at : end], depth)
                self._at = end
                if isinstance(inside, dict):
                    empty = not inside
                    mapping.update(inside)
                else:
                    empty = not inside
                    array += inside
                closes = data[end : end + 1] != b","
                if empty and not (first and closes):  # an extra comma
                    raise _Irregular
                yield
            first = False
            mark = data[self._at : self._at + 1]
            self._at += 1
            if mark == (b"]" if opening == b"[" else b"}"):
                return array if opening == b"[" else mapping
            if mark != b",":
                raise _Irregular

    def _member(self, depth: int) -> Generator[None, None, Json]:
        """The member that starts here and is larger than a piece."""
        data = self._data
        self._at = _blanks(data, self._at)
        if data[self._at : self._at + 1] in (b"[", b"{") and depth < LEVELS_MAX:
            return (yield from self._container(depth + 1))
        # A string, a number, or something deeply nested: search its end in the whole text.
        end = end_of_members(data, self._at, len(data), first=True)
        if end < 0:
            raise _Irregular
        yield
        (value,) = _decoded(b"[", data[self._at : end], depth)
        self._at = end
        yield
        return value

    def _key(self) -> str:
        found = _KEY.match(self._data, self._at)
        if found is None:
            raise _Irregular
        key = decode(found.group(1))
        if not isinstance(key, str):
            raise _Irregular
        self._at = found.end()
        return key

    def _end_of_piece(self) -> int | None:
        """The end of the last member that ends within a piece from here; `None`: none does."""
        end = end_of_members(self._data, self._at, PIECE_BYTES)
        if end == UNCLOSED:
            raise _Irregular
        return None if end == NO_END else end


def _decoded(opening: bytes, members: bytes, depth: int) -> list[Json] | dict[str, Json]:
    """Decode members with their container, inside `depth` others, so that the depth is checked."""
    closing = b"]" if opening == b"[" else b"}"
    value = decode(b"[" * depth + opening + members + closing + b"]" * depth)
    for _ in range(depth):
        (value,) = value  # type: ignore[misc, str-unpack, unused-ignore]
    return value  # type: ignore[return-value]


def _blanks(data: bytes, at: int) -> int:
    """The end of the whitespace that starts at `at`."""
    found = _BLANKS.match(data, at)
    return at if found is None else found.end()
