"""How `lo-kvs ingest` ends: input that cannot be used, lost stores, interrupts."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import resource
import signal
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lo_kvs.reducers import SOURCE
from lo_kvs.simulate import simulate, write_study_log
from lo_kvs.testing.servers.server import RedisServer

SHIPPED = ("--reducers", "lo_kvs.reducers")
Processes = Callable[..., subprocess.Popen[str]]


def event(number: int = 0, **metadata: Any) -> dict[str, Any]:
    whole = {"source": SOURCE, "auth": {"safe_user_id": "s1"}} | metadata
    return {
        "client": {"event": "typed", "doc_id": "d"},
        "metadata": {name: value for name, value in whole.items() if value is not None},
        "server": {"time": 1_790_000_000 + number},
    }


def write(path: Path, *events: Any) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in events))
    return path


def students(lo_kvs: Any) -> set[str]:
    keys = lo_kvs("keys").out.splitlines()
    return {key.rpartition("STUDENT:")[2] for key in keys if "STUDENT:" in key}


# -- input that cannot be used -------------------------------------------------------------


def test_other_kinds_of_files_end_with_1_and_the_others_are_read(
    lo_kvs: Any, tmp_path: Path, log: Path
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(log, "class.study.log")
    (tmp_path / "a.tar.gz").write_bytes(packed.getvalue())
    (tmp_path / "a.bz2").write_bytes(bz2.compress(log.read_bytes()))
    alone = lo_kvs("ingest", "a.tar.gz", *SHIPPED)
    assert alone.code == 1
    assert "not read: a.tar.gz: a tar archive; unpack it first: tar -xOf FILE\n" in alone.err
    answer = lo_kvs("ingest", "a.tar.gz", log, "a.bz2", *SHIPPED, "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert (found["events"], found["skipped"], found["complete"]) == (60, 0, False)
    assert [text.partition(":")[0] for text in found["damaged"]] == ["a.tar.gz", "a.bz2"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["nope", "nope"], "log: no line is an event for these reducers\n"),
        (
            ['{"username": "s1", "event_type": "problem_check", "context": {}}'],
            "it looks like an edX tracking log; convert its lines: an event is {",
        ),
        (['{"actor": {}, "verb": {}, "object": {}}'], "it looks like xAPI statements"),
        (['{"a": 1}'], "it looks like JSON objects of another form"),
        (["{", '"client": {}', "}"], "it looks like JSON spread over several lines"),
        (["[1]"], "it looks like a JSON array"),
    ],
)
def test_log_without_an_event_ends_with_1(
    lo_kvs: Any, tmp_path: Path, log: Path, lines: list[str], told: str
) -> None:
    (tmp_path / "log").write_text("\n".join(lines))
    answer = lo_kvs("ingest", "log", *SHIPPED)
    assert answer.code == 1, answer
    assert told in answer.err
    beside = lo_kvs("ingest", "log", log, *SHIPPED)  # a nightly job reads many
    assert beside.code == 1
    assert told in beside.err
    assert "60 events" in beside.out


def test_sources_and_contexts_that_do_not_meet_are_named(lo_kvs: Any, tmp_path: Path) -> None:
    write(tmp_path / "log", event(source="a"), event(source="a"), event(source="b\x1b[31m"))
    answer = lo_kvs("ingest", "log", *SHIPPED)
    assert answer.code == 1, answer
    assert "sources in the log: 'a' (2 events), 'b\\x1b[31m' (1 event)" in answer.err
    assert f"contexts of the reducers: '{SOURCE}'" in answer.err


def test_events_that_no_reducer_takes_end_with_1(lo_kvs: Any, tmp_path: Path) -> None:
    write(tmp_path / "log", event(source=None), event(source=None))
    answer = lo_kvs("ingest", "log", *SHIPPED)
    assert answer.code == 1, answer
    assert "no reducer ran: no event has a metadata.source" in answer.err
    (tmp_path / "own_reducers.py").write_text(
        """
from lo_kvs.reducers import SOURCE
from lo_kvs.stream_analytics.helpers import EventField, Scope, kvs_pipeline

@kvs_pipeline(null_state={}, scope=Scope([EventField("page")]))
async def pages(event, state):
    return state, state

REDUCERS = [{"context": SOURCE, "function": pages}]
"""
    )
    write(tmp_path / "log", event())
    answer = lo_kvs("ingest", "log", "--reducers", "own_reducers")
    assert answer.code == 1, answer
    assert "no reducer ran: the events lack the fields that the scopes" in answer.err


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"auth": "s1"}, "`metadata.auth` must be an object, got str"),
        ({"auth": ["s1"]}, "`metadata.auth` must be an object, got list"),
        ({"auth": {"safe_user_id": ["s1"]}}, "`metadata.auth.safe_user_id` must be text, got list"),
        ({"auth": {"safe_user_id": {}}}, "`metadata.auth.safe_user_id` must be text, got dict"),
        ({"auth": {"safe_user_id": True}}, "`metadata.auth.safe_user_id` must be text, got bool"),
    ],
)
def test_metadata_of_a_wrong_shape_is_not_counted_for_a_guest(
    lo_kvs: Any, tmp_path: Path, metadata: dict[str, Any], reason: str
) -> None:
    write(tmp_path / "log", event(), event(**metadata))
    answer = lo_kvs("ingest", "log", *SHIPPED)
    assert answer.code == 0, answer
    assert f"skipped: log:2: {reason}\n" in answer.err
    assert students(lo_kvs) == {"s1"}


def test_events_without_a_student_are_still_a_guest_s(lo_kvs: Any, tmp_path: Path) -> None:
    write(tmp_path / "log", event(auth=None), event(auth={}), event(auth={"safe_user_id": None}))
    assert lo_kvs("ingest", "log", *SHIPPED).code == 0
    assert students(lo_kvs) == {"[guest]"}


def test_files_with_nothing_in_them_are_reported(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "blank").write_text("\n \n")
    (tmp_path / "empty.gz").write_bytes(gzip.compress(b""))
    answer = lo_kvs("ingest", "/dev/null", "blank", "empty.gz", *SHIPPED)
    assert answer.code == 0, answer
    for name in ("/dev/null", "blank", "empty.gz"):
        assert f"{name}: there is nothing in it\n" in answer.err


def test_packed_bomb_needs_little_memory(
    lo_kvs_process: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\n" * 30_000_000, 9))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000, before[1]))
    try:
        process = lo_kvs_process("ingest", "bomb.gz", *SHIPPED)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err


# -- a store that is lost, and lines that stop a run -----------------------------------------


def redis_settings(path: Path, server: RedisServer) -> Path:
    connection = {"redis_url": server.url, "redis_retry_for": 0.2, "redis_timeout": 0.2}
    path.write_text(
        yaml.safe_dump({"kvs": {"default": {"type": "redis"}}, "redis_connection": connection})
    )
    return path


def counts(dump: str) -> int:
    return sum(
        state["count"]
        for key, state in json.loads(dump).items()
        if "External" in key and "event_count" in key
    )


def test_redis_that_stops_in_the_middle(
    lo_kvs: Any, lo_kvs_process: Processes, tmp_path: Path
) -> None:
    with RedisServer("--save", "3600", "1000000000") as server:
        config = redis_settings(tmp_path / "c.yaml", server)
        os.mkfifo(tmp_path / "pipe")
        process = lo_kvs_process(
            "ingest", "pipe", *SHIPPED, "--config", config, "--json", "--rejects", "rejects"
        )
        logged = tmp_path / "log"
        write_study_log(logged, simulate(students=3, events=200))
        lines = logged.read_bytes().splitlines(keepends=True)
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            pipe.write(b"".join(lines[:120]))
            deadline = time.monotonic() + 30
            while counts(lo_kvs("dump", "--config", config).out) < 120:
                assert time.monotonic() < deadline
            server.stop()
            pipe.write(b"".join(lines[120:]))
        out, err = process.communicate(timeout=60)
    assert process.returncode == 4, err
    found = json.loads(out)
    assert (found["events"], found["failed"], found["complete"]) == (120, 80, False)
    assert (found["last"], found["resume"]) == ("pipe:120", "pipe:121")
    last = err.splitlines()[-1]
    assert last.startswith(
        "lo-kvs: Stopped: Redis is unreachable. Applied 120 events (through pipe:120). "
        "Resume at pipe:121."
    )
    # What was sent to it in its last moment may be applied.
    assert ("possibly applied" in last) == (found["unknown"] > 0)
    assert (tmp_path / "rejects").read_bytes() == b"".join(lines[120:])


FAILING = """
from lo_kvs.reducers import SOURCE
from lo_kvs.stream_analytics.helpers import student_event_reducer

@student_event_reducer(null_state={"count": 0})
async def counter(event, state):
    state["count"] += 1
    if event["client"].get("fail"):
        raise RuntimeError(event["client"]["fail"])
    return state, state

REDUCERS = [{"context": SOURCE, "function": counter}]
"""


def test_strict_applies_nothing_from_the_failing_line_on(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "own_reducers.py").write_text(FAILING)
    events = [event(number, auth={"safe_user_id": f"s{number % 3}"}) for number in range(9)]
    write(tmp_path / "good", *events)
    events[5]["client"]["fail"] = "on purpose"
    write(tmp_path / "log", *events)
    assert lo_kvs("ingest", "good", "-r", "own_reducers", "--strict").code == 0
    answer = lo_kvs("ingest", "log", "-r", "own_reducers", "--strict")
    assert answer.code == 3, answer
    stopped = "Stopped: --strict at log:6. Applied 5 events (through log:5). Resume at log:6."
    assert answer.err.splitlines()[-2:] == [
        "failed: log:6: a reducer failed: RuntimeError: on purpose",
        f"lo-kvs: {stopped}",
    ]
    states = json.loads(lo_kvs("dump").out)
    assert sum(state["count"] for key, state in states.items() if "External" in key) == 9 + 5


def test_rejects_on_a_full_disk_stop_the_run_with_a_true_report(
    lo_kvs_process: Processes, tmp_path: Path, log: Path
) -> None:
    log.write_text(log.read_text() + "x" * 10_000 + "\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limited = (8000, before[1])  # EFBIG comes where a full disk says ENOSPC
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, limited)
    try:
        config = tmp_path / "c.yaml"
        config.write_text("kvs: {default: {type: stub}}")
        process = lo_kvs_process("ingest", log, *SHIPPED, "-c", config, "--rejects", "rejects")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "Stopped: cannot write to rejects: File too large. Applied 60 events" in err
    assert f"Resume at {log}:62." in err


# -- interrupts ------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def silent_server() -> Iterator[tuple[int, list[socket.socket]]]:
    """A port that accepts connections and never says anything, and those connections."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            try:
                while True:
                    kept.append(listener.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], kept
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for each in kept:
                each.close()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "command", ["ingest log -r lo_kvs.reducers", "keys", "load a.json", "dump out.json"]
)
def test_second_interrupt_ends_at_once_though_the_store_is_silent(
    lo_kvs_process: Processes, tmp_path: Path, command: str, sent: signal.Signals
) -> None:
    write(tmp_path / "log", event())
    (tmp_path / "a.json").write_text('{"a": 1}')
    with silent_server() as (port, kept):
        connection = {"redis_port": port, "redis_timeout": 60, "redis_retry_for": 60}
        content = {"kvs": {"default": {"type": "redis"}}, "redis_connection": connection}
        (tmp_path / "creds.yaml").write_text(yaml.safe_dump(content))
        process = lo_kvs_process(*command.split())
        assert process.stderr is not None
        # It waits for the server by then: the check at startup has a time-out of its own.
        assert "it cannot be reached" in process.stderr.readline()
        wait_for(lambda: len(kept) > 1 or not command.startswith("ingest"))
        process.send_signal(sent)
        while "again to stop at once" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(sent)
        began = time.monotonic()
        assert process.wait(30) == 130
        assert time.monotonic() - began < 5
        err = process.stderr.read()
        process.communicate()
    assert "Traceback" not in err
    if command.startswith("ingest"):
        assert "lo-kvs: Stopped: interrupted twice. Applied 0 events." in err
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name.startswith("out")) == []
