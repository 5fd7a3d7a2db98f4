"""Logs with holes, marks and other encodings, files that are no logs, and packed bombs."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest

from lo_kvs.ingest import event_log, log_lines
from lo_kvs.ingest.event_log import EventLogs, Item

BOM = b"\xef\xbb\xbf"
TEXT = "caf\u00e9 \u96ea \U0001f642"


def line(number: int) -> bytes:
    return json.dumps({"client": {"event": "x", "number": number, "text": TEXT}}).encode() + b"\n"


def lines(first: int, last: int) -> bytes:
    return b"".join(line(number) for number in range(first, last + 1))


def read(path: Path) -> tuple[list[Item], EventLogs]:
    logs = EventLogs([str(path)])
    return [item for batch in logs.batches() for item in batch], logs


def numbers(found: list[Item]) -> list[int]:
    return [item.event["client"]["number"] for item in found if isinstance(item.event, dict)]


@pytest.mark.parametrize("block_bytes", [1, 7, event_log.BLOCK_BYTES])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        BOM + lines(1, 2) + BOM + lines(3, 4),  # files with a mark, joined
        BOM + BOM + lines(1, 4),  # the first of them was empty
        lines(1, 2) + BOM + b"\n" + lines(3, 4),
        (BOM + lines(1, 2))[:-1] + BOM + lines(3, 4),  # no line break at the end of one
        lines(1, 2) + b"\0" * 5000 + lines(3, 4),  # truncated under its writer
        b"\0" * 5000 + BOM + lines(1, 4),
        BOM + b"\0" * 50 + lines(1, 4),
        lines(1, 4) + b"\0" * 5000,  # the power was lost
        lines(1, 2)[:-1] + b"\0" * 5000 + b"\n" + lines(3, 4),
        lines(1, 2)[:-1] + b"\0" * 5000 + lines(3, 4),
        (lines(1, 4)).replace(b"\n", b"\0\r\n"),
        b"\0\n\0\0\r\n" + lines(1, 4),
    ],
)
def test_marks_and_holes_cost_no_event(
    content: bytes, packed: bool, block_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "BLOCK_BYTES", block_bytes)
    path = tmp_path / "log"
    path.write_bytes(gzip.compress(content) if packed else content)
    found, logs = read(path)
    assert [item.fault for item in found] == [None] * 4
    assert numbers(found) == [1, 2, 3, 4]
    assert logs.damaged == logs.foreign == []
    assert logs.nuls == ({str(path): content.count(b"\0")} if b"\0" in content else {})


def test_event_behind_a_torn_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(1) + line(2)[:20] + b"\0" * 5000 + line(3) + line(4))
    found, _ = read(path)
    assert numbers(found) == [1, 3, 4]
    assert [(item.line, item.raw) for item in found if item.fault] == [(2, line(2)[:20])]
    assert [item.line for item in found] == [1, 2, 2, 3]


def test_each_packed_member_may_have_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(BOM + lines(1, 2)) + gzip.compress(BOM + lines(3, 4)))
    assert numbers(read(path)[0]) == [1, 2, 3, 4]


def test_hole_larger_than_a_line_may_be(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.write(lines(1, 2))
        file.seek(log_lines.LINE_BYTES_MAX + 1_000_000, os.SEEK_CUR)  # takes no room
        file.write(lines(3, 4))
    tracemalloc.start()
    try:
        found, logs = read(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert numbers(found) == [1, 2, 3, 4]
    assert logs.nuls == {str(path): log_lines.LINE_BYTES_MAX + 1_000_000}


@pytest.mark.parametrize("block_bytes", [1, 7, event_log.BLOCK_BYTES])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        ("\ufeff", "utf-16-le"),
        ("\ufeff", "utf-16-be"),
        ("\ufeff", "utf-32-le"),
        ("\ufeff", "utf-32-be"),
        ("", "utf-16-le"),
        ("", "utf-16-be"),
    ],
)
def test_utf_16_and_32_are_read(
    mark: str,
    encoding: str,
    packed: bool,
    block_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_log, "BLOCK_BYTES", block_bytes)
    text = (lines(1, 2) + BOM + lines(3, 4)).decode().replace("\n", "\r\n")
    content = (mark + text.replace("\\u00e9", "\u00e9")).encode(encoding)
    path = tmp_path / "log"
    path.write_bytes(gzip.compress(content) if packed else content)
    found, logs = read(path)
    assert [item.fault for item in found] == [None] * 4
    assert [item.event["client"]["text"] for item in found] == [TEXT] * 4
    assert [item.line for item in found] == [1, 2, 3, 4]
    assert logs.damaged == []


def test_utf_16_that_is_cut_off_or_has_half_a_character(tmp_path: Path) -> None:
    path = tmp_path / "log"
    content = ("\ufeff" + lines(1, 3).decode()).encode("utf-16-le")
    path.write_bytes(content + b"{")
    found, logs = read(path)
    assert numbers(found) == [1, 2, 3]
    assert "the last character of the UTF-16 text is cut off" in logs.damaged[0]
    half = lines(2, 2).decode().replace('"x"', '"\udc00"')
    text = "\ufeff" + lines(1, 1).decode() + half + lines(3, 3).decode()
    path.write_bytes(text.encode("utf-16-le", "surrogatepass"))
    found, _ = read(path)
    assert numbers(found) == [1, 3]
    assert [item.line for item in found if item.fault] == [2]


def tar(content: bytes, form: int, name: str = "ten.log") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ten.log", content)
    return buffer.getvalue()


LOG = lines(1, 10)
OBJECTS = [json.loads(text) for text in LOG.splitlines()]
#: Nothing here packs with zstd, 7z and lz4: only what such files begin with counts.
FOREIGN = {
    "zstd": (b"\x28\xb5\x2f\xfd\x24\x50" + os.urandom(100), "packed with zstd"),
    "zstd after a frame of its own": (b"\x50\x2a\x4d\x18\x04\0\0\0abcd", "packed with zstd or lz4"),
    "lz4": (b"\x04\x22\x4d\x18\x64\x40" + os.urandom(100), "packed with lz4"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4" + os.urandom(100), "a 7z archive"),
    "xz": (lzma.compress(LOG), "packed with xz"),
    "lzma": (lzma.compress(LOG, lzma.FORMAT_ALONE), "packed with lzma"),
    "bzip2": (bz2.compress(LOG), "packed with bzip2"),
    "zlib": (zlib.compress(LOG), "packed with zlib"),
    "zip": (zipped(LOG), "a zip archive"),
    "tar": (tar(LOG, tarfile.USTAR_FORMAT), "a tar archive"),
    "tar of GNU": (tar(LOG, tarfile.GNU_FORMAT), "a tar archive"),
    "tar with long names": (tar(LOG, tarfile.PAX_FORMAT, "\u96ea" * 200), "a tar archive"),
    "array": (json.dumps(OBJECTS).encode(), "a JSON array; write one event per line: jq"),
    "array with a mark": (BOM + json.dumps(OBJECTS).encode(), "a JSON array"),
    "array of lines": (b"[" + b",\n".join(LOG.splitlines()) + b"]\n", "a JSON array"),
    "array over lines": (b"[\n" + b",\n".join(LOG.splitlines()) + b"\n]\n", "a JSON array"),
    "indented array": (json.dumps(OBJECTS, indent=2).encode(), "a JSON array"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("block_bytes", [100, event_log.BLOCK_BYTES])
@pytest.mark.parametrize("kind", FOREIGN)
def test_other_kinds_of_files_are_named_and_not_read(
    kind: str, block_bytes: int, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "BLOCK_BYTES", block_bytes)
    content, named = FOREIGN[kind]
    path = tmp_path / "log"
    path.write_bytes(gzip.compress(content) if packed else content)
    found, logs = read(path)
    assert found == []
    assert logs.damaged == logs.empty == []
    assert [text.startswith(f"{path}: {named}") for text in logs.foreign] == [True]


def test_packed_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(gzip.compress(LOG)))
    found, logs = read(path)
    assert found == []
    assert logs.foreign == [f"{path}: packed with gzip twice; unpack it once: zcat FILE"]


@pytest.mark.parametrize(
    "first", [b"[]", b"[1]", b'[{"ty": "is"}], "x": 1}', b"BZ", b"x", b'["a", {"b": 1}]', b"[{"[:1]]
)
def test_unusual_first_line_does_not_make_a_log_foreign(first: bytes, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(first + (b" torn" if first == b"[" else b"") + b"\n" + lines(1, 3))
    found, logs = read(path)
    assert numbers(found) == [1, 2, 3]
    assert logs.foreign == []
    assert len(found) == 4


@pytest.mark.parametrize(
    ("unit", "count"), [(b"\n", 0), (b" \n", 0), (b"\0", 0), (b"{}\n", None), (b"\r\n", 0)]
)
def test_small_packed_file_does_not_fill_the_memory(
    unit: bytes, count: int | None, tmp_path: Path
) -> None:
    size = 4_000_000
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(unit * (size // len(unit)), 9))
    assert path.stat().st_size < 20_000
    logs = EventLogs([str(path)])
    seen = 0
    tracemalloc.start()
    try:
        for batch in logs.batches():
            seen += len(batch)
            if seen > 20_000:  # tracemalloc makes objects slow
                break
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert count is None or seen == count
    assert logs.damaged == []


def test_endless_line_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "LINE_BYTES_MAX", 2_000_000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(line(1) + b"{" + b"a" * 40_000_000, 1))
    tracemalloc.start()
    try:
        found, logs = read(path)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert numbers(found) == [1]
    assert logs.damaged == [f"{path}: a line is longer than 2,000,000 bytes, after line 1"]


@pytest.mark.parametrize("part_bytes", [1, 5, 1000])
def test_small_parts_lose_nothing(
    part_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_lines, "PART_BYTES_MAX", part_bytes)
    monkeypatch.setattr(event_log, "BLOCK_BYTES", 11)
    path = tmp_path / "log.gz"
    content = b"".join(line(number) * 3 for number in range(40))
    path.write_bytes(gzip.compress(content) + bytes(20) + gzip.compress(content[:500]))
    found, logs = read(path)
    assert b"\n".join(item.raw for item in found) == content + content[:500]
    assert logs.damaged == []
