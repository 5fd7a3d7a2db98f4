"""Lines of bytes: from the blocks of a file that may be packed, cut off or altered."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

#: The longest line; whatever has a longer one is no event log, and would fill the memory.
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"


class Damaged(Exception):
    """A file that cannot be read to its end, and why. What came before was given out."""


def lines_of(blocks: Iterator[bytes]) -> Iterator[list[bytes]]:
    """The lines in each block of a file, without their LF; what follows the last LF is one too.

    Gives out what there is before it raises: `Damaged`, or what `blocks` raises.
    """
    blocks = _unpacked(blocks)
    parts: list[bytes] = []  # of the line that is not complete yet
    length = 0
    damage: Damaged | OSError | None = None
    while True:
        try:
            block = next(blocks, None)
        except (Damaged, OSError) as error:
            damage, block = error, None
        if block is None:
            break
        first, newline, rest = block.partition(b"\n")
        parts.append(first)
        length += len(first)
        if newline:
            lines = rest.split(b"\n")
            yield [b"".join(parts), *lines[:-1]]
            parts, length = [lines[-1]], len(lines[-1])
        if length > LINE_BYTES_MAX:
            raise Damaged(f"a line is longer than {LINE_BYTES_MAX:,} bytes")
    if length:
        yield [b"".join(parts)]
    if damage is not None:
        raise damage


def _unpacked(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The text of the blocks, whether they are packed or not, without a byte order mark."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(_BOM):
            break
    plain = _gunzip(_chain(head, blocks)) if head.startswith(_GZIP) else _chain(head, blocks)
    start = b""
    for block in plain:
        start += block
        if len(start) >= len(_BOM):
            break
    yield from _chain(start.removeprefix(_BOM), plain)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """What gzip packed, also in several parts. Gives out all that can be unpacked.

    Raises `Damaged` then, where the file is cut off or its content was altered.
    """
    inflate = zlib.decompressobj(wbits=31)
    for block in blocks:
        data = block
        while data:
            if inflate.eof:  # a log that was appended to has parts; padding has zeros
                data = data.lstrip(b"\0")
                if not data:
                    break
                inflate = zlib.decompressobj(wbits=31)
            before = inflate.copy()
            try:
                yield inflate.decompress(data)
            except zlib.error as error:
                yield _salvaged(before, data)
                raise Damaged(f"the packed data is damaged ({error})") from None
            data = inflate.unused_data
    if not inflate.eof:
        raise Damaged("the packed data is cut off")


def _salvaged(inflate: Any, data: bytes) -> bytes:
    """What comes out of `data` before its fault; a call that fails gives out nothing."""
    parts = bytearray()
    with contextlib.suppress(zlib.error):
        for at in range(len(data)):
            parts += inflate.decompress(data[at : at + 1])
    return bytes(parts)
