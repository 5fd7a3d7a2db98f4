"""Reads event logs: the lines of files, compressed or not, and the event in each line.

A line is `JSON<TAB>ISO time`, or the JSON alone, in UTF-8; lines end in LF or CRLF. Blank
lines, byte order marks and NUL bytes before a line are skipped. UTF-16 and UTF-32 are read if
the file starts with a byte order mark. Gzip is recognized by the first bytes, not by the name,
so a compressed log may also come from a pipe. Other kinds of files are reported, not read.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from lo_kvs.ingest.log_kinds import BOM
from lo_kvs.ingest.log_lines import Damaged, Lines, WrongKind
from lo_kvs.kvs import codec
from lo_kvs.kvs.errors import shorten
from lo_kvs.plain_text import harmless
from lo_kvs.stream_analytics.pipeline import BadEvent

STDIN: Final = "-"
#: A batch ends after this many lines or bytes. In larger batches, more events of a state are
#: written together: with 1,000 states, a line takes 0.53 of the time that it takes in batches of
#: 2,000. The decoded objects need about five times the bytes.
BATCH_LINES_MAX: Final = 8000
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
BLOCK_BYTES: Final = 256 * 1024

_TIME = re.compile(rb"\s*\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?\s*")


class Unreadable(Exception):
    """Some files cannot be read; the message has a line for each."""


class Item(NamedTuple):
    """A line of a log: its place, its bytes without the LF, and its event.

    file, line  the name of the file and the line number, from 1
    fault       why it is not a valid event, or `None`; `event` has no meaning then
    """

    file: str
    line: int
    raw: bytes
    event: Any
    fault: BadEvent | None = None

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


class EventLogs:
    """The event logs `names`, one after another; `-` is standard input.

    size      total bytes, or `None` if one is not a regular file
    consumed  bytes read so far
    damaged   files that could not be read to the end, as `file: reason`
    foreign   files that are not event logs and were not read, as `file: kind; fix`
    empty     the names of files without lines, or with blank lines only
    nuls      the number of NUL bytes between lines, for each file that has any

    Raises `Unreadable` if a file cannot be opened or is named twice, before any is read.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.size: int | None = 0
        self.consumed = 0
        self.damaged: list[str] = []
        self.foreign: list[str] = []
        self.nuls: dict[str, int] = {}
        self.empty: list[str] = []
        self._names = names
        faults: list[str] = []
        seen: set[tuple[int, int]] = set()
        for name in names:
            try:
                found = os.fstat(0) if name == STDIN else Path(name).stat()
                fault = _fault(name, found, seen)
            except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                fault = getattr(error, "strerror", None) or "invalid file name"
            else:
                regular = stat.S_ISREG(found.st_mode)
                self.size = self.size + found.st_size if regular and self.size is not None else None
            if fault is not None:
                faults.append(f"{shown(name)}: {fault}")
        if faults:
            raise Unreadable("\n".join(faults))

    def batches(self) -> Iterator[list[Item]]:
        """The lines of all logs, in groups that may span several logs.

        If reading more would block (a pipe), a group ends early, so that available lines are not
        delayed. After a damaged log, which is added to `damaged`, the next one follows.
        """
        batch: list[Item] = []
        size = 0
        for name in self._names:
            for item, more in self._items(name):
                batch.append(item)
                size += len(item.raw)
                if not more or len(batch) >= BATCH_LINES_MAX or size >= BATCH_BYTES_MAX:
                    yield batch
                    batch, size = [], 0
        if batch:
            yield batch

    def _items(self, name: str) -> Iterator[tuple[Item, bool]]:
        """Each line that is not blank, and whether the next one can be read without waiting."""
        label = shown(name)
        lines: Lines | None = None
        filled = False
        try:
            with _opened(name) as file:
                lines = Lines(self._blocks(file))
                for group in lines.groups():
                    filled = filled or bool(group)
                    last = len(group) - 1
                    for at, (number, raw) in enumerate(group):
                        more = at < last or _ready(file)
                        for item in _items_of(label, number, raw):
                            yield item, more
        except WrongKind as kind:
            self.foreign.append(f"{label}: {kind}")
        except (OSError, Damaged) as error:
            reason = (error.strerror or error) if isinstance(error, OSError) else error
            read = lines.number if lines is not None else 0
            self.damaged.append(f"{label}: {reason}, after line {read}")
        else:
            if not filled:
                self.empty.append(label)
        if lines is not None and lines.nuls:
            self.nuls[label] = lines.nuls

    def _blocks(self, file: BinaryIO) -> Iterator[bytes]:
        while block := file.read(BLOCK_BYTES):
            self.consumed += len(block)
            yield block


def event_of(raw: bytes) -> Any:
    """The JSON of one line. Raises `BadEvent` if it is invalid.

    The pipeline checks whether the JSON is a valid event.
    """
    text, tab, time = raw.rpartition(b"\t")
    timed = bool(tab) and _TIME.fullmatch(time) is not None
    try:
        return codec.decode(text if timed else raw)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise BadEvent(f"not valid UTF-8 (byte {error.start + 1} is 0x{byte:02x})") from None
    except (ValueError, RecursionError) as error:
        if tab and not timed and _is_json(text):
            raise BadEvent(
                f"expected an ISO time after the TAB, got {shorten(time, 60)[1:]}"
            ) from None
        if isinstance(error, json.JSONDecodeError):  # its own text has another "line 1" in it
            raise BadEvent(f"not valid JSON: {error.msg} at character {error.colno}") from None
        raise BadEvent(f"not valid JSON: {error}") from None


def shown(name: str) -> str:
    """The name of a log, for messages."""
    return "standard input" if name == STDIN else harmless(name)


def _items_of(label: str, line: int, raw: bytes) -> list[Item]:
    """The event of a line, or those of two files that were joined without a line break."""
    item = _item(label, line, raw)
    if item.fault is not None and BOM in raw:
        items = [_item(label, line, piece) for piece in raw.split(BOM) if piece.strip()]
        if all(each.fault is None for each in items):
            return items
    return [item]


def _item(label: str, line: int, raw: bytes) -> Item:
    try:
        return Item(label, line, raw, event_of(raw))
    except BadEvent as fault:
        return Item(label, line, raw, None, fault)


def _fault(name: str, found: os.stat_result, seen: set[tuple[int, int]]) -> str | None:
    if stat.S_ISDIR(found.st_mode):
        return "is a directory; name the logs in it"
    if name != STDIN and not os.access(name, os.R_OK):
        return "permission denied"
    # Reading the same log twice would count its events twice.
    identity = (found.st_dev, found.st_ino)
    if identity in seen:
        return "named twice"
    seen.add(identity)
    return None


def _opened(name: str) -> BinaryIO:
    # Unbuffered: a read returns the available data, and `select` sees the rest.
    if name == STDIN:
        return open(0, "rb", buffering=0, closefd=False)
    return Path(name).open("rb", buffering=0)


def _ready(file: BinaryIO) -> bool:
    """Whether reading would not block; regular files never block."""
    return bool(select.select([file], [], [], 0)[0])


def _is_json(text: bytes) -> bool:
    try:
        codec.decode(text)
    except (ValueError, RecursionError):
        return False
    return True
