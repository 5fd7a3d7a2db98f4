"""An LRU cache of the states without queued events, bounded by memory."""

from __future__ import annotations

from typing import Final

#: Overhead of a state besides its keys, its text and its members: entries in tables. Measured
#: as growth of the process (CPython 3.11, 60,000 states), as is the next figure.
STATE_BYTES: Final = 1400
#: Overhead of a decoded member of an object or a list, besides its text.
MEMBER_BYTES: Final = 140


class Cached:
    """An entry of the cache: a node of a doubly linked list, with its size."""

    __slots__ = ("_after", "_before", "_own_size", "_size", "_text_size")

    def __init__(self, keys_size: int = 0) -> None:
        self._before: Cached | None = None
        self._after: Cached | None = None
        self._own_size = STATE_BYTES + keys_size
        self._size = self._own_size
        self._text_size = 0

    def measure(self, data: bytes | None) -> None:
        """Estimate the memory of a state with this text.

        The text and the decoded object contain the same characters, and there is a comma for
        each member but the first. They are counted again when the text's size changed by an
        eighth. One non-ASCII character makes each character of its string wider in memory.
        """
        if data is None:
            self._size, self._text_size = self._own_size, 0
            return
        text_size = len(data)
        if not 7 * self._text_size <= 8 * text_size <= 9 * self._text_size:
            self._text_size = text_size
            width = 1 if data.isascii() else 4 if _has_wide(data) else 2
            self._size = self._own_size + (1 + width) * text_size + MEMBER_BYTES * data.count(b",")


def _has_wide(data: bytes) -> bool:
    """Whether there is a character above U+FFFF: in UTF-8 it starts with one of these bytes."""
    return any(first in data for first in (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4"))


class Cache:
    """An LRU cache bounded by memory; with a limit of 0 it stays empty.

    bytes  the estimated memory of its entries
    """

    __slots__ = ("_bytes_max", "_ends", "bytes")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.bytes = 0
        # A ring: the entry after this one was used least recently, the one before it last.
        self._ends = Cached()
        self._ends._before = self._ends._after = self._ends

    def put(self, used: Cached) -> None:
        """Add an entry that was just used."""
        ends = self._ends
        latest = ends._before
        used._before, used._after = latest, ends
        latest._after = ends._before = used  # type: ignore[union-attr]
        self.bytes += used._size

    def take_out(self, cached: Cached) -> None:
        """Remove an entry that is about to be used."""
        before, after = cached._before, cached._after
        before._after, after._before = after, before  # type: ignore[union-attr]
        cached._before = cached._after = None
        self.bytes -= cached._size

    def surplus(self) -> Cached | None:
        """Remove and return the least recently used entry if the cache is over its limit."""
        if self.bytes <= self._bytes_max or self._ends._after is self._ends:
            return None
        oldest = self._ends._after
        self.take_out(oldest)  # type: ignore[arg-type]
        return oldest
