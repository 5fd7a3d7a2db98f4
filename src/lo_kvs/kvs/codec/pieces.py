"""Decoding a large text piece by piece, so that others have their turn between two pieces.

orjson decodes ten megabytes in one go and lets nobody else run meanwhile, in a thread neither.
So a large array or object is cut at its commas, into pieces of whole members, and each piece is
decoded by itself. A member that is larger than a piece is cut in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

from lo_kvs.kvs.codec import Json, decode, end_of_members
from lo_kvs.kvs.codec._py import NO_END, UNCLOSED

#: The size of a piece: some milliseconds. A text that is no larger is decoded in one go.
PIECE_BYTES: Final = 512 * 1024

#: How many containers around a member it is cut at most.
LEVELS_MAX: Final = 16

_BLANKS = re.compile(rb"[ \t\n\r]*")
_KEY = re.compile(rb'[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)


class _Irregular(Exception):
    """The text cannot be cut, perhaps because it is no JSON: it is decoded in one go."""


def decode_pieces(data: bytes) -> Generator[None, None, Json]:
    """`decode(data)`, which it returns; it yields after each piece. Raises ValueError."""
    if len(data) > PIECE_BYTES:
        try:
            return (yield from _Cut(data).value())
        except (_Irregular, ValueError):  # the whole text says what is wrong, and where
            yield
    return decode(data)


class _Cut:
    """One large text, cut from its beginning to its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self) -> Generator[None, None, Json]:
        value = yield from self._container(0)
        if _blanks(self._data, self._at) != len(self._data):
            raise _Irregular
        return value

    def _container(self, depth: int) -> Generator[None, None, Json]:
        """The array or object that begins here, `depth` others around it."""
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
                if empty and not (first and closes):  # a comma too many
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
        """The member that begins here, which is larger than a piece."""
        data = self._data
        self._at = _blanks(data, self._at)
        if data[self._at : self._at + 1] in (b"[", b"{") and depth < LEVELS_MAX:
            return (yield from self._container(depth + 1))
        # A text, a number, or what is deep inside: with so much room its end is found.
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
        """Where the last member ends that ends within a piece from here; `None`: none does."""
        end = end_of_members(self._data, self._at, PIECE_BYTES)
        if end == UNCLOSED:
            raise _Irregular
        return None if end == NO_END else end


def _decoded(opening: bytes, members: bytes, depth: int) -> list[Json] | dict[str, Json]:
    """Members as the container that they are in; `depth` others are around it, which counts."""
    closing = b"]" if opening == b"[" else b"}"
    value = decode(b"[" * depth + opening + members + closing + b"]" * depth)
    for _ in range(depth):
        (value,) = value  # type: ignore[misc, str-unpack, unused-ignore]
    return value  # type: ignore[return-value]


def _blanks(data: bytes, at: int) -> int:
    """Where the blanks that begin at `at` end."""
    found = _BLANKS.match(data, at)
    return at if found is None else found.end()
