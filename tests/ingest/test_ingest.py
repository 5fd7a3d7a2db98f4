"""Event logs as they are read, and runs of their events through reducers into a store."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lo_kvs.ingest import event_log, log_lines
from lo_kvs.ingest.event_log import EventLogs, Item, Unreadable
from lo_kvs.ingest.job import Ingest, Reject, Stopped, Tally
from lo_kvs.kvs import Change, InMemoryKVS, Outcome, Store, Unavailable
from lo_kvs.stream_analytics.helpers import (
    KeyStateType,
    fully_qualified_function_name,
    student_event_reducer,
)
from lo_kvs.stream_analytics.pipeline import Pipeline

SOURCE = "test"
TIME = b"\t2026-09-07T09:00:15.304000"


def event(number: int, **client: Any) -> dict[str, Any]:
    return {
        "client": {"event": "typed", "number": number, **client},
        "metadata": {"source": SOURCE, "auth": {"safe_user_id": "s1"}},
    }


def line(number: int, **client: Any) -> bytes:
    return json.dumps(event(number, **client)).encode()


@student_event_reducer(null_state={"numbers": []})
async def numbers(event: Any, state: Any) -> Any:
    client = event["client"]
    if "fail" in client:
        raise RuntimeError(client["fail"])
    if "odd" in client:
        return {"value": float("nan")}, False
    state["numbers"].append(client["number"])
    return state, state


NUMBERS_KEY = f"{KeyStateType.EXTERNAL.value},{fully_qualified_function_name(numbers)},STUDENT:s1"
PIPELINE = Pipeline([{"context": SOURCE, "function": numbers}])


def items(logs: EventLogs) -> list[Item]:
    return [item for batch in logs.batches() for item in batch]


def read(path: Path) -> tuple[list[Item], EventLogs]:
    logs = EventLogs([str(path)])
    return items(logs), logs


# -- reading -----------------------------------------------------------------------------


@pytest.mark.parametrize("block_bytes", [1, 7, event_log.BLOCK_BYTES])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (line(1) + b"\n" + line(2) + b"\n", [1, 2]),
        (line(1) + TIME + b"\n" + line(2) + TIME + b"\n", [1, 2]),
        (line(1) + TIME + b"+00:00\n" + line(2) + b"\t2026-09-07 09:00Z\n", [1, 2]),
        (line(1) + TIME + b"\r\n" + line(2) + b"\r\n", [1, 2]),
        (line(1) + b"\n" + line(2) + TIME, [1, 2]),  # no LF at the end
        (b"\xef\xbb\xbf" + line(1) + b"\n" + line(2), [1, 2]),
        (b"\n\r\n  \n" + line(4) + b"\n\n" + line(6) + b"\n\n", [4, 6]),
        (line(1).replace(b", ", b",\t") + b"\n", [1]),  # JSON may have tabs in it
        (b"", []),
        (b"\n", []),
        (b"\xef\xbb\xbf", []),
    ],
)
@pytest.mark.parametrize("packed", ["plain", "gzip", "in two parts", "padded"])
def test_lines_that_are_events(
    content: bytes,
    lines: list[int],
    packed: str,
    block_bytes: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_log, "BLOCK_BYTES", block_bytes)
    half = len(content) // 2
    path = tmp_path / "any.name"
    path.write_bytes(
        {
            "plain": content,
            "gzip": gzip.compress(content),
            "in two parts": gzip.compress(content[:half]) + gzip.compress(content[half:]),
            "padded": gzip.compress(content) + bytes(100),
        }[packed]
    )
    found, logs = read(path)
    assert [item.fault for item in found] == [None] * len(lines)
    assert [(item.line, item.event) for item in found] == [(n, event(n)) for n in lines]
    assert (logs.consumed, logs.damaged) == (logs.size, [])


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"nope", "not valid JSON: Expecting value at character 1"),
        (b'{"client": ', "not valid JSON: Expecting value at character 12"),
        (b"\xff\xfe", "not valid UTF-8 (byte 1 is 0xff)"),
        (b'{"a": "\xe4"}', "not valid UTF-8 (byte 8 is 0xe4)"),
        (b"{}\tyesterday", "expected an ISO time after the TAB, got 'yesterday'"),
        (b"{}\t{}", "expected an ISO time after the TAB, got '{}'"),
        (b"{}" + TIME[:-13], "expected an ISO time after the TAB, got '2026-09-07T09'"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_line_that_is_not_a_valid_event(raw: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(line(1) + b"\n" + raw + b"\n" + line(3) + b"\n")
    first, odd, last = read(path)[0]
    assert str(odd.fault).startswith(reason)
    assert (odd.raw, odd.place) == (raw, f"{path}:2")
    assert (first.event, last.event, last.line) == (event(1), event(3), 3)


def test_truncated_log(tmp_path: Path) -> None:
    content = b"".join(line(n, text="x" * n) + TIME + b"\n" for n in range(1, 30))
    packed = gzip.compress(content)
    path = tmp_path / "log.gz"
    for length in range(2, len(packed)):
        path.write_bytes(packed[:length])
        found, logs = read(path)
        whole = [item for item in found if item.fault is None]
        assert [item.event["client"]["number"] for item in whole] == list(range(1, len(whole) + 1))
        assert len(found) - len(whole) <= 1  # the line that was cut
        assert logs.damaged == [
            f"{path}: the compressed data is truncated, after line {len(found)}"
        ]
    # All that is missing in the last round is a byte of the size: every line is there.
    assert len(whole) == 29


def test_log_that_was_altered(tmp_path: Path) -> None:
    random = Random(0)
    content = b"".join(line(n, text=random.randbytes(30).hex()) + b"\n" for n in range(1, 300))
    packed = bytearray(gzip.compress(content))
    packed[len(packed) // 2] ^= 0xFF
    damaged, sound = tmp_path / "damaged.gz", tmp_path / "sound"
    damaged.write_bytes(packed)
    sound.write_bytes(line(1000) + b"\n")
    logs = EventLogs([str(damaged), str(sound)])
    whole = [item.event["client"]["number"] for item in items(logs) if item.fault is None]
    # Up to the alteration everything is there; behind it, until that shows, may be nonsense.
    assert whole[:100] == list(range(1, 101))
    assert whole[-1] == 1000
    assert len(logs.damaged) == 1
    assert "damaged.gz: the compressed data is damaged" in logs.damaged[0]


def test_line_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "LINE_BYTES_MAX", 1000)
    monkeypatch.setattr(event_log, "BLOCK_BYTES", 100)
    path = tmp_path / "log"
    path.write_bytes(line(1) + b"\n" + b"x" * 2000)
    found, logs = read(path)
    assert [item.line for item in found] == [1]
    assert logs.damaged == [f"{path}: a line is longer than 1,000 bytes, after line 1"]


def test_unreadable_logs_are_reported_together(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    names = [str(tmp_path / name) for name in ("there", "missing", "./there", "", "a\0b")]
    with pytest.raises(Unreadable) as raised:
        EventLogs(names)
    reported = str(raised.value).splitlines()
    assert reported == [
        f"{names[1]}: No such file or directory",
        f"{names[2]}: named twice",
        f"{names[3]}: is a directory; name the logs in it",
        f"{tmp_path}/a\\x00b: invalid file name",
    ]


def test_empty_logs(tmp_path: Path) -> None:
    empty, packed, filled = (tmp_path / name for name in ("empty", "empty.gz", "filled"))
    empty.touch()
    packed.write_bytes(gzip.compress(b""))
    filled.write_bytes(line(1))
    logs = EventLogs([str(empty), str(packed), str(filled)])
    assert [item.place for item in items(logs)] == [f"{filled}:1"]
    assert logs.empty == [str(empty), str(packed)]


def test_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "BATCH_LINES_MAX", 4)
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(b"".join(line(n) + b"\n" for n in range(5)))
    batches = list(EventLogs([str(path) for path in paths]).batches())
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [item.line for item in itertools.chain(*batches)] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5]

    monkeypatch.setattr(event_log, "BATCH_BYTES_MAX", 2 * len(line(1)))
    batches = list(EventLogs([str(paths[0])]).batches())
    assert [len(batch) for batch in batches] == [2, 2, 1]


def test_lines_from_a_pipe_are_not_delayed(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    batches = EventLogs([str(pipe)]).batches()
    try:
        os.write(writer, line(1) + b"\n" + line(2) + b"\n" + line(3)[:9])
        assert [item.line for item in next(batches)] == [1, 2]
        os.write(writer, line(3)[9:] + b"\n")
        assert [item.event for item in next(batches)] == [event(3)]
    finally:
        os.close(writer)
    assert list(batches) == []


# -- running -----------------------------------------------------------------------------


def batch_of(*lines: bytes, start: int = 1) -> list[Item]:
    return [event_log._item("log", at, raw) for at, raw in enumerate(lines, start)]


class Run:
    """What a run came to."""

    def __init__(
        self, batches: Sequence[list[Item]], *, strict: bool = False, store: Store | None = None
    ) -> None:
        self.rejects: list[Reject] = []
        self.tallies: list[tuple[int, int, int]] = []
        self.stopped: Stopped | None = None
        self.tally: Tally
        self.state: Any = None
        asyncio.run(self._run(batches, strict, store or InMemoryKVS()))

    async def _run(self, batches: Sequence[list[Item]], strict: bool, store: Store) -> None:
        async with store:
            job = Ingest(
                PIPELINE,
                store,
                strict=strict,
                on_reject=self.rejects.append,
                on_batch=lambda t: self.tallies.append((t.events, t.skipped, t.failed)),
            )
            try:
                await job.run(batches)
            except Stopped as stopped:
                self.stopped = stopped
            self.tally = job.tally
            state = await store.get(NUMBERS_KEY)
            self.numbers = state and state["numbers"]


def test_events_reach_the_store_in_their_order() -> None:
    run = Run([batch_of(line(1), line(2)), batch_of(line(3), start=3)])
    assert run.numbers == [1, 2, 3]
    assert run.tallies == [(2, 0, 0), (3, 0, 0)]
    assert run.rejects == []
    assert run.tally.seconds > 0
    assert run.tally.last is not None
    assert run.tally.last.place == "log:3"


def test_invalid_lines_are_reported_and_skipped() -> None:
    unknown = json.dumps(event(4) | {"metadata": {"source": "elsewhere"}}).encode()
    run = Run([batch_of(line(1), b"nope", b"[]", unknown, b'{"client": {}}', line(6))])
    assert run.numbers == [1, 6]
    assert run.tallies == [(2, 4, 0)]
    assert [(reject.item.line, reject.skipped) for reject in run.rejects] == [
        (2, True),
        (3, True),
        (4, True),
        (5, True),
    ]
    assert [reject.reason for reject in run.rejects] == [
        "not valid JSON: Expecting value at character 1",
        "expected an object, got list",
        "unknown metadata.source 'elsewhere'; known: test",
        "`client.event`, the name of the event, is missing or not a string",
    ]


def test_events_on_which_a_reducer_fails_are_counted_apart() -> None:
    run = Run([batch_of(line(1), line(2, fail="two\nlines"), line(3, odd=True), line(4))])
    assert run.numbers == [1, 4]
    assert run.tallies == [(2, 0, 2)]
    assert [reject.item.raw for reject in run.rejects] == [
        line(2, fail="two\nlines"),
        line(3, odd=True),
    ]
    assert run.rejects[0].reason == "a reducer failed: RuntimeError: two lines"
    assert run.rejects[1].reason.startswith("$.value: ")


def test_events_without_a_source() -> None:
    run = Run([batch_of(line(1), b'{"client": {"event": "x"}}')])
    assert (run.tally.events, run.tally.no_source) == (2, 1)


@pytest.mark.parametrize("odd", [b"nope", b'{"client": {}}', line(3, fail="on purpose")])
def test_strict_stops_at_the_place(odd: bytes) -> None:
    run = Run([batch_of(line(1), line(2), odd, line(4)), batch_of(line(5), start=5)], strict=True)
    assert run.stopped is not None
    assert (run.stopped.reject.item.place, run.stopped.lost) == ("log:3", False)
    assert str(run.stopped).startswith("log:3: ")
    assert run.numbers == [1, 2]
    assert (run.tally.events, run.tally.beyond) == (2, 0)
    assert run.tally.last is not None
    assert run.tally.last.place == "log:2"
    assert [reject.item.line for reject in run.rejects] == [3]


class LostStore(InMemoryKVS):
    """A store that answers only so many commits."""

    def __init__(self, commits: int) -> None:
        super().__init__()
        self._left = commits

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self._left -= 1
        if self._left < 0:
            return [Unavailable("gone")] * len(changes)
        return await super().commit(changes)


def test_lost_store_ends_the_run() -> None:
    store = LostStore(1)
    batches = [batch_of(line(n), start=n) for n in (1, 2, 3)]
    run = Run(batches, store=store)
    assert run.stopped is not None
    assert (str(run.stopped), run.stopped.lost) == ("log:2: gone", True)
    assert run.numbers == [1]
    assert (run.tally.events, run.tally.failed) == (1, 1)


def interrupting(job: Ingest, batches: list[list[Item]], after: int) -> Iterator[list[Item]]:
    for number, batch in enumerate(batches):
        if number == after:
            signal.raise_signal(signal.SIGINT)
        yield batch


def test_interrupt_while_waiting_for_input() -> None:
    async def interrupted() -> tuple[Any, Ingest]:
        async with InMemoryKVS() as store:
            job = Ingest(PIPELINE, store)
            before = signal.signal(signal.SIGINT, lambda *_: job.interrupt())
            try:
                batches = [batch_of(line(n), start=n) for n in (1, 2, 3)]
                await job.run(interrupting(job, batches, after=2))
            finally:
                signal.signal(signal.SIGINT, before)
            return await store.get(NUMBERS_KEY), job

    state, job = asyncio.run(interrupted())
    assert state == {"numbers": [1, 2]}
    assert (job.interrupted, job.tally.events) == (True, 2)


def test_interrupt_during_a_batch() -> None:
    jobs: list[Ingest] = []

    class Slow(InMemoryKVS):
        async def commit(
            self, changes: Sequence[Change], *, deadline: float | None = None
        ) -> list[Outcome]:
            jobs[0].interrupt()
            return await super().commit(changes)

    async def interrupted() -> Any:
        async with Slow() as store:
            jobs.append(Ingest(PIPELINE, store))
            await jobs[0].run([batch_of(line(n), start=n) for n in (1, 2, 3)])
            return await store.get(NUMBERS_KEY)

    assert asyncio.run(interrupted()) == {"numbers": [1]}
    assert (jobs[0].interrupted, jobs[0].tally.events) == (True, 1)
    with pytest.raises(KeyboardInterrupt):
        jobs[0].interrupt()
