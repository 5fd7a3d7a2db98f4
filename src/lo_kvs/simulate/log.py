"""Writes event logs: events as lines of text in a file."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import BinaryIO

from lo_kvs.output_files import replaced
from lo_kvs.simulate.student import Event

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write_study_log(path: str | os.PathLike[str], events: Iterable[Event]) -> int:
    """Write `events` as an event log, compressed where `path` ends in `.gz`.

    One event a line: its JSON, a TAB, and the server's time as ISO text (UTC). The file
    depends on the events alone, also when compressed: no name and no date goes into it.
    Returns the number of events. An existing file is replaced when all is written.
    """
    with replaced(path) as file:
        if not os.fspath(path).endswith(".gz"):
            return _write_lines(file, events)
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
            return _write_lines(packed, events)


def _write_lines(out: BinaryIO | gzip.GzipFile, events: Iterable[Event]) -> int:
    count = 0
    for event in events:
        received = (EPOCH + timedelta(seconds=event["server"]["time"])).replace(tzinfo=None)
        line = f"{json.dumps(event)}\t{received.isoformat(timespec='microseconds')}\n"
        out.write(line.encode("ascii"))
        count += 1
    return count
