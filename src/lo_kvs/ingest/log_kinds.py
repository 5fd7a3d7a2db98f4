"""Recognizes files that are not event logs, so that a message can name the kind and the fix."""

from __future__ import annotations

import re
import tarfile
from typing import Any, Final

#: How much of a file is needed to recognize its kind: tar has its magic at byte 257.
HEAD_BYTES: Final = 512
GZIP: Final = b"\x1f\x8b"
BOM: Final = b"\xef\xbb\xbf"

_ARRAY_FIX: Final = "write one event per line: jq -c '.[]' FILE"
_EVENT: Final = (
    'an event is {"client": {"event": NAME, ...}, "metadata": {"source": CONTEXT, '
    '"auth": {"safe_user_id": ID}}}'
)
#: The first bytes of a file, and its kind.
_MAGIC: Final = (
    (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it first: zstd -dc FILE"),
    (b"\xfd7zXZ\x00", "packed with xz; unpack it first: xz -dc FILE"),
    (b"\x5d\x00\x00", "packed with lzma; unpack it first: xz -dc FILE"),
    (b"BZh", "packed with bzip2; unpack it first: bzip2 -dc FILE"),
    (b"PK\x03\x04", "a zip archive; unpack it first: unzip -p FILE"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"PK\x07\x08", "a zip archive; unpack it first: unzip -p FILE"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it first: 7z x -so FILE"),
    (b"\x04\x22\x4d\x18", "packed with lz4; unpack it first: lz4 -dc FILE"),
    (b"\x02\x21\x4c\x18", "packed with lz4; unpack it first: lz4 -dc FILE"),
    (b"\x89LZO\x00\r\n\x1a\n", "packed with lzop; unpack it first: lzop -dc FILE"),
    (b"LZIP", "packed with lzip; unpack it first: lzip -dc FILE"),
    (b"\xff\x06\x00\x00sNaPpY", "packed with Snappy; unpack it first"),
    (b"\x1f\x9d", "packed with compress; unpack it first: zcat FILE"),
    (b"\x78\x01", "packed with zlib; unpack it first"),
    (b"\x78\x9c", "packed with zlib; unpack it first"),
    (b"\x78\xda", "packed with zlib; unpack it first"),
    (b"Rar!\x1a\x07", "a rar archive; unpack it first: unrar p FILE"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"REDIS0", "a Redis snapshot (RDB)"),
    (b"PAR1", "a Parquet file"),
    (b"Obj\x01", "an Avro file"),
    (b"%PDF-", "a PDF document"),
    (GZIP, "packed with gzip twice; unpack it once: zcat FILE"),
)
#: Skippable frames of zstd and lz4: a number is part of their magic, and they have no data.
_SKIPPABLE: Final = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_ENCODINGS: Final = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_UTF_16_LE: Final = re.compile(rb"(?:[\t\n\r ]\0)*\{\0[\t\n\r -~]\0")
_UTF_16_BE: Final = re.compile(rb"(?:\0[\t\n\r ])*\0\{\0[\t\n\r -~]")


def kind_of(head: bytes) -> str | None:
    """The kind of a file that starts with `head`, and the fix; `None` for lines of text.

    `head` is the first line, or `HEAD_BYTES` if that is less, or the whole file.
    """
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if _SKIPPABLE.match(head):
        return "packed with zstd or lz4; unpack it first"
    if _is_tar(head):
        return "a tar archive; unpack it first: tar -xOf FILE"
    return f"a JSON array; {_ARRAY_FIX}" if _is_array(head) else None


def encoding_of(head: bytes) -> str | None:
    """The encoding of text that starts with `head`, or `None` for UTF-8."""
    for mark, encoding in _ENCODINGS:
        if head.startswith(mark):
            return encoding
    if _UTF_16_LE.match(head):
        return "utf-16-le"
    return "utf-16-be" if _UTF_16_BE.match(head) else None


def may_be_array(head: bytes) -> bool:
    """Whether more than the usual head is needed to recognize a JSON array."""
    return head.removeprefix(BOM).lstrip()[:1] == b"["


def hint(raw: bytes, event: Any) -> str | None:
    """The likely kind of a file without any event, from one of its lines."""
    if isinstance(event, list):
        return f"a JSON array; {_ARRAY_FIX}"
    if isinstance(event, dict) and "client" not in event:
        names = event.keys()
        if {"event_type", "username"} <= names or {"event_type", "event_source"} <= names:
            return f"an edX tracking log; convert its lines: {_EVENT}"
        if {"actor", "verb", "object"} <= names:
            return f"xAPI statements; convert them: {_EVENT}"
        return f"JSON objects of another form; convert them: {_EVENT}"
    if event is None and raw.strip() in {b"{", b"["}:
        return "JSON spread over several lines; write one event per line: jq -c . FILE"
    return None


def _is_tar(head: bytes) -> bool:
    if len(head) < HEAD_BYTES:
        return False
    try:
        tarfile.TarInfo.frombuf(head[:HEAD_BYTES], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_array(head: bytes) -> bool:
    """Whether the first line starts an array of objects, and is not a torn line of a log."""
    first = head.removeprefix(BOM).lstrip().partition(b"\n")[0].strip()
    if first[:1] != b"[":
        return False
    return first == b"[" or (first[1:].lstrip()[:1] == b"{" and first[-1:] in b"[,{]")
