"""The cache of states that no event waits for: the least recently used leave first."""

from __future__ import annotations

from typing import Final

#: What a state takes besides its keys, its text and its members: its entries in tables.
#: Measured as growth of the process (CPython 3.11, 60,000 states), as is the next figure.
STATE_BYTES: Final = 1400
#: What a member of an object or a list takes when it has been read, besides its text.
MEMBER_BYTES: Final = 140


class Cached:
    """What can be in a cache: a place between what was used before it and after it."""

    __slots__ = ("_after", "_before", "_own_size", "_size", "_text_size")

    def __init__(self, keys_size: int = 0) -> None:
        self._before: Cached | None = None
        self._after: Cached | None = None
        self._own_size = STATE_BYTES + keys_size
        self._size = self._own_size
        self._text_size = 0

    def measure(self, data: bytes | None) -> None:
        """Note the memory that a state with this text takes, about.

        Text and object hold the same characters, and there is a comma for each member but
        the first. They are counted anew where the text's size has changed by an eighth. One
        character that is not ASCII makes each character of its string wider in memory.
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
    """Whether a character beyond U+FFFF is there: it begins with one of these bytes in UTF-8."""
    return any(first in data for first in (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4"))


class Cache:
    """Bounded by memory; 0 keeps nothing.

    bytes  what is in it takes, about
    """

    __slots__ = ("_bytes_max", "_ends", "bytes")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.bytes = 0
        # A ring: after this one the least recently used, before it the latest.
        self._ends = Cached()
        self._ends._before = self._ends._after = self._ends

    def put(self, used: Cached) -> None:
        """It has just been used."""
        ends = self._ends
        latest = ends._before
        used._before, used._after = latest, ends
        latest._after = ends._before = used  # type: ignore[union-attr]
        self.bytes += used._size

    def take_out(self, cached: Cached) -> None:
        """It is about to be used."""
        before, after = cached._before, cached._after
        before._after, after._before = after, before  # type: ignore[union-attr]
        cached._before = cached._after = None
        self.bytes -= cached._size

    def surplus(self) -> Cached | None:
        """Take out the least recently used, where there is more than may be."""
        if self.bytes <= self._bytes_max or self._ends._after is self._ends:
            return None
        oldest = self._ends._after
        self.take_out(oldest)  # type: ignore[arg-type]
        return oldest
