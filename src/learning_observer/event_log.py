"""Event logs, as they are read: lines of files, packed or not, and the event in each.

A line is `JSON<TAB>ISO time`, or the JSON alone, in UTF-8; lines end in LF or CRLF. Blank
lines and a byte order mark at the start are passed over. What is packed with gzip is known
by its first bytes, not by its name, so a packed log may also come from a pipe.
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

from learning_observer.kvs import codec
from learning_observer.kvs.errors import shorten
from learning_observer.log_lines import Damaged, lines_of
from learning_observer.stream_analytics.pipeline import BadEvent

STDIN: Final = "-"
#: A batch ends after this many lines or bytes. The more there are, the more events of a state
#: are written together: with 1,000 states a line took 0.53 of what it takes in batches of
#: 2,000. They are in memory as objects, some five times the bytes.
BATCH_LINES_MAX: Final = 8000
BATCH_BYTES_MAX: Final = 16 * 1024 * 1024
BLOCK_BYTES: Final = 256 * 1024

_TIME = re.compile(rb"\s*\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?\s*")


class Unreadable(Exception):
    """Files that cannot be read at all; the text has a line for each."""


class Item(NamedTuple):
    """A line of a log: where it stands, its bytes without the LF, and the event in it.

    file, line  the name of the file, and the line's number, from 1
    fault       why it is no event, or `None`; `event` says nothing then
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

    size      bytes of all of them together, or `None` where one is no regular file
    consumed  bytes read so far
    damaged   what could not be read to its end, as `file: reason`
    empty     the names of those in which there was nothing

    Raises `Unreadable` where one cannot be opened or is named twice, before any is read.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.size: int | None = 0
        self.consumed = 0
        self.damaged: list[str] = []
        self.empty: list[str] = []
        self._names = names
        faults: list[str] = []
        seen: set[tuple[int, int]] = set()
        for name in names:
            try:
                found = os.fstat(0) if name == STDIN else Path(name).stat()
                fault = _fault(name, found, seen)
            except (OSError, ValueError) as error:  # ValueError: a NUL in the name
                fault = getattr(error, "strerror", None) or "this can be no name of a file"
            else:
                regular = stat.S_ISREG(found.st_mode)
                self.size = self.size + found.st_size if regular and self.size is not None else None
            if fault is not None:
                faults.append(f"{shown(name)}: {fault}")
        if faults:
            raise Unreadable("\n".join(faults))

    def batches(self) -> Iterator[list[Item]]:
        """The lines of all logs, in groups that may reach from one log into the next.

        Where reading more would have to wait (a pipe), a group ends early, so that what
        has come is not held back. A damaged log goes into `damaged`, and the next one follows.
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
        """Each line that is not blank, and whether the next one can be had without waiting."""
        label, number = shown(name), 0
        try:
            with _opened(name) as file:
                for lines in lines_of(self._blocks(file)):
                    numbered = list(enumerate(lines, number + 1))
                    number += len(lines)
                    filled = [(at, raw) for at, raw in numbered if raw.strip()]
                    for at, raw in filled:
                        more = at < filled[-1][0] or _ready(file)
                        yield _item(label, at, raw), more
        except OSError as error:
            self.damaged.append(f"{label}: {error.strerror or error}, after line {number}")
        except Damaged as damage:
            self.damaged.append(f"{label}: {damage}, after line {number}")
        else:
            if not number:
                self.empty.append(label)

    def _blocks(self, file: BinaryIO) -> Iterator[bytes]:
        while block := file.read(BLOCK_BYTES):
            self.consumed += len(block)
            yield block


def event_of(raw: bytes) -> Any:
    """The JSON of one line; `BadEvent` says what is wrong with it.

    Whether the JSON is an event is for the pipeline to say.
    """
    text, tab, time = raw.rpartition(b"\t")
    timed = bool(tab) and _TIME.fullmatch(time) is not None
    try:
        return codec.decode(text if timed else raw)
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise BadEvent(f"no UTF-8 text (byte {error.start + 1} is 0x{byte:02x})") from None
    except (ValueError, RecursionError) as error:
        if tab and not timed and _is_json(text):
            raise BadEvent(
                f"after the TAB an ISO time was expected, got {shorten(time, 60)[1:]}"
            ) from None
        if isinstance(error, json.JSONDecodeError):  # its own text has another "line 1" in it
            raise BadEvent(f"no JSON: {error.msg} at character {error.colno}") from None
        raise BadEvent(f"no JSON: {error}") from None


def shown(name: str) -> str:
    """The name of a log, for messages."""
    return "standard input" if name == STDIN else name


def _item(label: str, line: int, raw: bytes) -> Item:
    try:
        return Item(label, line, raw, event_of(raw))
    except BadEvent as fault:
        return Item(label, line, raw, None, fault)


def _fault(name: str, found: os.stat_result, seen: set[tuple[int, int]]) -> str | None:
    if stat.S_ISDIR(found.st_mode):
        return "this is a folder; name the logs in it"
    if name != STDIN and not os.access(name, os.R_OK):
        return "no permission to read it"
    # Twice the same log would count every event of it twice.
    identity = (found.st_dev, found.st_ino)
    if identity in seen:
        return "named twice"
    seen.add(identity)
    return None


def _opened(name: str) -> BinaryIO:
    # Unbuffered: a read gives what is there, and `select` knows about the rest.
    if name == STDIN:
        return open(0, "rb", buffering=0, closefd=False)
    return Path(name).open("rb", buffering=0)


def _ready(file: BinaryIO) -> bool:
    """Whether reading would not have to wait; regular files never do."""
    return bool(select.select([file], [], [], 0)[0])


def _is_json(text: bytes) -> bool:
    try:
        codec.decode(text)
    except (ValueError, RecursionError):
        return False
    return True
