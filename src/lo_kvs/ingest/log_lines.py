"""Splits the blocks of a file into lines; the file may be compressed, truncated or damaged.

The memory does not grow with the decompressed size: data is decompressed in small chunks, blank
lines are dropped at once, and the length of a line is limited.
"""

from __future__ import annotations

import codecs
import contextlib
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from lo_kvs.ingest.log_kinds import (
    BOM,
    GZIP,
    HEAD_BYTES,
    encoding_of,
    kind_of,
    may_be_array,
)

#: The longest line. A file with a longer one is not an event log, and would fill the memory.
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
#: How much is decompressed at a time, whatever its compressed size.
PART_BYTES_MAX: Final = 256 * 1024
#: How much is read to distinguish a JSON array from a log.
ARRAY_HEAD_BYTES_MAX: Final = 8 * 1024 * 1024
#: A line with more holes (runs of NUL bytes) than this is binary data or UTF-16.
HOLES_MAX: Final = 16

_LEADING = re.compile(rb"(?:\xef\xbb\xbf|\s)*")
_NULS = re.compile(rb"\0+")


class Damaged(Exception):
    """A file cannot be read to its end; the message says why. Earlier lines were returned."""


class WrongKind(Damaged):
    """A file is not an event log; the message has its kind and the fix. Nothing was read."""


class Lines:
    """The lines in the blocks of a file.

    number  lines so far, including blank ones
    nuls    NUL bytes so far that are not part of a line
    """

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.number = 0
        self.nuls = 0
        self._blocks = self._without_holes(_text(blocks))

    def groups(self) -> Iterator[list[tuple[int, bytes]]]:
        """The lines that are not blank, with their numbers from 1 and without their LF.

        Text after the last LF is a line too. NUL bytes end a line like an LF, but are not
        counted: they remain if a file was truncated while it was written, or after a power
        failure. A byte order mark may precede any line.

        Yields all complete lines before it raises `Damaged`, or what the blocks raise.
        """
        parts: list[bytes] = []  # of the incomplete last line
        length = 0
        damage: Damaged | OSError | None = None
        while True:
            try:
                block = next(self._blocks, None)
            except (Damaged, OSError) as error:
                damage, block = error, None
            if block is None:
                break
            first, newline, rest = block.partition(b"\n")
            parts.append(first)
            length += len(first)
            if newline:
                lines = rest.split(b"\n")
                yield self._filled([b"".join(parts), *lines[:-1]])
                parts, length = [lines[-1]], len(lines[-1])
            if length > LINE_BYTES_MAX:
                raise Damaged(f"a line is longer than {LINE_BYTES_MAX:,} bytes")
        if length:
            yield self._filled([b"".join(parts)])
        if damage is not None:
            raise damage

    def _filled(self, lines: list[bytes]) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for raw in lines:
            self.number += 1
            if raw.startswith(b"{") and b"\0" not in raw:
                found.append((self.number, raw))
            elif raw and not raw.isspace():
                pieces = list(_pieces(raw))
                if pieces == [raw]:  # the NUL bytes are part of the line
                    self.nuls -= raw.count(b"\0")
                found += [(self.number, piece) for piece in pieces]
        return found

    def _without_holes(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """The blocks with each run of NUL bytes reduced to one, so that a hole needs no memory."""
        in_hole = False
        for block in blocks:
            if b"\0" not in block:
                in_hole = False
                yield block
                continue
            start = block.lstrip(b"\0") if in_hole else block
            closed = _NULS.sub(b"\0", start)
            self.nuls += len(block) - len(closed) + closed.count(b"\0")
            in_hole = block.endswith(b"\0")
            if closed:
                yield closed


def _pieces(raw: bytes) -> Iterator[bytes]:
    """The pieces of one line, which are separated by holes."""
    pieces = raw.split(b"\0") if raw.count(b"\0") <= HOLES_MAX else [raw]
    found = [piece for part in pieces if (piece := _without_mark(part)).strip()]
    if found and not any(piece.lstrip().startswith(b"{") for piece in found):
        found = [raw]  # no JSON object in it, so it is one bad line, reported unchanged
    yield from found


def _without_mark(part: bytes) -> bytes:
    leading = _LEADING.match(part)
    return part[leading.end() :] if leading and BOM in leading.group() else part


def _text(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The text of the blocks in UTF-8. Raises `WrongKind` for files that are not lines of text."""
    head, blocks = _peeked(blocks)
    if head.startswith(GZIP):
        head, blocks = _peeked(_gunzip(blocks))
    kind = kind_of(head)
    if kind is not None:
        raise WrongKind(kind)
    encoding = encoding_of(head)
    yield from blocks if encoding is None else _decoded(blocks, encoding)


def _peeked(blocks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The start of a file, enough to recognize its kind, and all of its blocks.

    It does not wait for a pipe that pauses after its first line.
    """
    head = b""
    for block in blocks:
        head += block
        most = ARRAY_HEAD_BYTES_MAX if may_be_array(head) else HEAD_BYTES
        if len(head) >= most or b"\n" in head.lstrip() or head.startswith(GZIP):
            break
    return head, _chain(head, blocks)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _decoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    # Half a surrogate pair makes only its own line invalid.
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
    for block in blocks:
        for at in range(0, len(block), PART_BYTES_MAX):
            try:
                text = decoder.decode(block[at : at + PART_BYTES_MAX])
            except UnicodeDecodeError as error:
                raise Damaged(f"not valid {encoding.upper()} ({error.reason})") from None
            yield text.encode("utf-8", "surrogatepass")
    if decoder.getstate()[0]:
        raise Damaged(f"the last character of the {encoding.upper()} text is cut off")


def _gunzip(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The decompressed data of gzip, also of several members.

    Yields everything that can be decompressed, then raises `Damaged` if the file is truncated or
    its content is damaged.
    """
    inflate = zlib.decompressobj(wbits=31)
    for block in blocks:
        data, more = block, False
        while data or more:
            if inflate.eof:  # a log that was appended to has several members; padding is zeros
                data = data.lstrip(b"\0")
                if not data:
                    break
                inflate = zlib.decompressobj(wbits=31)
            before = inflate.copy()
            try:
                part = inflate.decompress(data, PART_BYTES_MAX)
            except zlib.error as error:
                yield from _salvaged(before, data)
                raise Damaged(f"the compressed data is damaged ({error})") from None
            data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            more = len(part) == PART_BYTES_MAX and not inflate.eof  # the rest may be inside
            if part:
                yield part
    if not inflate.eof:
        raise Damaged("the compressed data is truncated")


def _salvaged(inflate: Any, data: bytes) -> Iterator[bytes]:
    """The output of `data` before its error; a call that fails returns nothing."""
    with contextlib.suppress(zlib.error):
        for at in range(len(data)):
            left = data[at : at + 1]
            while left:
                part = inflate.decompress(left, PART_BYTES_MAX)
                left = inflate.unconsumed_tail
                if part:
                    yield part
