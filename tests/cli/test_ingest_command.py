from __future__ import annotations

import gzip
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lo_kvs.simulate import simulate, write_study_log
from lo_kvs.testing.servers.server import RedisServer

SHIPPED = ("--reducers", "lo_kvs.reducers")
Processes = Callable[..., subprocess.Popen[str]]


def settings(path: Path, **stores: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"kvs": stores}))
    return path


def counted(dump: str) -> int:
    """The sum of the event counts in a dump."""
    states = json.loads(dump).items()
    return sum(
        state["count"] for key, state in states if "External" in key and "event_count" in key
    )


def test_log_goes_into_the_built_in_default(lo_kvs: Any, log: Path) -> None:
    answer = lo_kvs("ingest", log, *SHIPPED)
    assert answer.code == 0, answer
    assert "60 events" in answer.out
    assert "no creds.yaml here: the built-in default" in answer.err
    assert (log.parent / ".lo_kvs").is_dir()
    assert counted(lo_kvs("dump").out) == 60


def test_creds_file_in_the_folder_counts(lo_kvs: Any, log: Path, tmp_path: Path) -> None:
    settings(tmp_path / "creds.yaml", default={"type": "filesystem", "path": "elsewhere"})
    answer = lo_kvs("ingest", log, *SHIPPED)
    assert "settings: creds.yaml" in answer.err
    assert not (tmp_path / ".lo_kvs").exists()
    assert counted(lo_kvs("dump").out) == 60


def test_store_and_overlay(lo_kvs: Any, log: Path, tmp_path: Path) -> None:
    config = settings(
        tmp_path / "x.yaml",
        default={"type": "stub"},
        archive={"type": "filesystem", "path": "one"},
    )
    overlay = settings(tmp_path / "over.yaml", archive={"path": "two"})
    options = ("--config", config, "--overlay", overlay, "--store", "archive")
    assert lo_kvs("ingest", log, *SHIPPED, *options).code == 0
    assert (tmp_path / "two").is_dir()
    assert not (tmp_path / "one").exists()
    assert counted(lo_kvs("dump", *options).out) == 60


def test_summary_as_json(lo_kvs: Any, log: Path, tmp_path: Path) -> None:
    packed = tmp_path / "more.study.log.gz"
    write_study_log(packed, simulate(students=1, events=20, seed=4))
    answer = lo_kvs("ingest", log, packed, *SHIPPED, "--json")
    assert answer.code == 0, answer
    found = json.loads(answer.out)
    assert found["seconds"] > 0
    assert found["events_s"] == pytest.approx(80 / found["seconds"], rel=0.1)
    assert found["keys"] == len(lo_kvs("keys").out.splitlines()) > 0
    del found["seconds"], found["events_s"], found["keys"]
    assert found == {
        "events": 80,
        "skipped": 0,
        "failed": 0,
        "no_source": 0,
        "store": {"name": "default", "type": "filesystem", "where": ".lo_kvs"},
        "complete": True,
        "last": f"{packed}:20",
        "damaged": [],
    }
    assert answer.err == ""


@pytest.mark.parametrize("name", [(), ("-",)])
@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(
    lo_kvs: Any, lo_kvs_process: Processes, log: Path, name: tuple[str, ...], packed: bool
) -> None:
    data = log.read_bytes()
    process = lo_kvs_process("ingest", *name, *SHIPPED, "--json")
    assert process.stdin is not None
    with open(process.stdin.fileno(), "wb", closefd=False) as pipe:
        pipe.write(gzip.compress(data) if packed else data)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert json.loads(out)["events"] == 60
    assert counted(lo_kvs("dump").out) == 60


BAD = [b"nope", b"\xff\xfe\x00", b'{"client": {}}\t2026-09-07T09:00:00', b"[]\r"]


@pytest.fixture
def mixed(log: Path) -> Path:
    """The log with bad lines in it: 3, 5, 7 and 9, and a blank one at the end."""
    lines = log.read_bytes().splitlines()
    for at, bad in zip((2, 4, 6, 8), BAD, strict=True):
        lines.insert(at, bad)
    log.write_bytes(b"\n".join(lines) + b"\n\n")
    return log


def test_bad_lines_are_reported_counted_and_kept(lo_kvs: Any, mixed: Path, tmp_path: Path) -> None:
    rejects = tmp_path / "rejects"
    answer = lo_kvs("ingest", mixed, *SHIPPED, "--json", "--rejects", rejects)
    assert answer.code == 0, answer
    found = json.loads(answer.out)
    assert (found["events"], found["skipped"]) == (60, 4)
    assert rejects.read_bytes() == b"".join(bad + b"\n" for bad in BAD)
    why = (tmp_path / "rejects.why").read_text().splitlines()
    assert [line.split(": ")[0] for line in why] == [f"{mixed}:{n}" for n in (3, 5, 7, 9)]
    assert answer.err.splitlines() == [f"skipped: {line}" for line in why]
    assert counted(lo_kvs("dump").out) == 60


def test_rejects_are_appended(lo_kvs: Any, mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "rejects").write_bytes(b"of an earlier run\n")
    lo_kvs("ingest", mixed, *SHIPPED, "--rejects", "rejects")
    assert len((tmp_path / "rejects").read_bytes().splitlines()) == 5


def test_rejects_file_that_is_an_input_is_rejected(lo_kvs: Any, mixed: Path) -> None:
    before = mixed.read_bytes()
    answer = lo_kvs("ingest", mixed, *SHIPPED, "--rejects", mixed)
    assert answer.code == 2
    assert "this file is also an input" in answer.err
    assert mixed.read_bytes() == before


def test_many_bad_lines_are_counted_after_the_first_few(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("nope\n" * 20)
    answer = lo_kvs("ingest", "log", *SHIPPED, "--json")
    assert json.loads(answer.out)["skipped"] == 20
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 7
    assert "skipped: 15 more; --rejects FILE keeps them" in answer.err


def test_strict_stops_at_the_first_bad_line(lo_kvs: Any, mixed: Path) -> None:
    answer = lo_kvs("ingest", mixed, *SHIPPED, "--strict", "--json")
    assert answer.code == 3, answer
    assert f"skipped: {mixed}:3: not valid JSON" in answer.err
    stopped = f"Stopped: --strict at {mixed}:3. Applied 2 events (through {mixed}:2). "
    assert f"lo-kvs: {stopped}Resume at {mixed}:3.\n" in answer.err
    found = json.loads(answer.out)
    assert (found["events"], found["skipped"], found["complete"]) == (2, 1, False)
    assert counted(lo_kvs("dump").out) == 2


def test_events_that_fail_are_counted_apart(lo_kvs: Any, tmp_path: Path, log: Path) -> None:
    (tmp_path / "own_reducers.py").write_text(
        """
from lo_kvs.reducers import SOURCE
from lo_kvs.stream_analytics.helpers import student_event_reducer

@student_event_reducer(null_state={"count": 0})
async def fails_on_the_third(event, state):
    state["count"] += 1
    if state["count"] == 3:
        raise RuntimeError("three")
    return state, state

REDUCERS = [{"context": SOURCE, "function": fails_on_the_third}]
"""
    )
    answer = lo_kvs("ingest", log, "--reducers", "own_reducers", "--json", "--rejects", "rejects")
    assert answer.code == 1, answer
    found = json.loads(answer.out)
    # The state stays as it was, so each event after that is the third again.
    assert found["events"] == 4
    assert found["failed"] == 56
    assert "a reducer failed: RuntimeError: three" in answer.err
    lines = log.read_bytes().splitlines()
    assert set((tmp_path / "rejects").read_bytes().splitlines()) < set(lines)
    assert lo_kvs("ingest", log, "--reducers", "own_reducers", "--strict").code == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no module named 'own_reducers'"),
        ("x = 1", "own_reducers has no list REDUCERS"),
        ("REDUCERS = [1]", "an entry of REDUCERS needs `context` and `function`, got 1"),
        ("def (", "cannot be imported: SyntaxError: "),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero ("),
        ("import not_there", "no module named 'not_there'"),
    ],
)
def test_invalid_reducers(
    lo_kvs_process: Processes, tmp_path: Path, log: Path, source: str | None, message: str
) -> None:
    if source is not None:
        (tmp_path / "own_reducers.py").write_text(source)
    process = lo_kvs_process("ingest", log, "--reducers", "own_reducers")
    _, err = process.communicate()
    assert process.returncode == 2, err
    assert err.startswith("lo-kvs: --reducers own_reducers: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / ".lo_kvs").exists()


def test_files_that_cannot_be_read(lo_kvs: Any, tmp_path: Path, log: Path) -> None:
    answer = lo_kvs("ingest", log, "missing", tmp_path, *SHIPPED)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.splitlines() == [
        "lo-kvs: nothing was done:",
        "missing: No such file or directory",
        f"{tmp_path}: is a directory; name the logs in it",
    ]


def test_damaged_log_does_not_stop_the_others(lo_kvs: Any, tmp_path: Path, log: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(log.read_bytes())[:-8])
    (tmp_path / "empty").touch()
    answer = lo_kvs("ingest", "cut.gz", "empty", log, *SHIPPED, "--json")
    assert answer.code == 1, answer
    assert answer.err.splitlines() == [
        "not read to its end: cut.gz: the compressed data is truncated, after line 60",
        "empty: there is nothing in it",
    ]
    found = json.loads(answer.out)
    assert (found["events"], found["complete"], len(found["damaged"])) == (120, False, 1)


def test_configuration_with_faults(lo_kvs: Any, tmp_path: Path, log: Path) -> None:
    settings(tmp_path / "creds.yaml", one={"type": "filesystm"}, two={"type": "redis_ephemeral"})
    answer = lo_kvs("ingest", log, *SHIPPED)
    assert answer.code == 2
    assert answer.out == ""
    for fault in ("kvs.one: unknown type", "kvs.two: `expiry` is missing", "kvs.default: there is"):
        assert fault in answer.err
    assert "Traceback" not in answer.err


def test_redis_gives_the_same_states(
    lo_kvs: Any, tmp_path: Path, log: Path, redis_url: str
) -> None:
    (tmp_path / "redis.yaml").write_text(
        yaml.safe_dump(
            {
                "kvs": {"default": {"type": "redis", "prefix": "t:"}},
                "redis_connection": {"redis_url": redis_url},
            }
        )
    )
    answer = lo_kvs("ingest", log, *SHIPPED, "--config", "redis.yaml")
    assert answer.code == 0, answer
    assert "prefix t:" in answer.err
    lo_kvs("ingest", log, *SHIPPED)
    on_redis = json.loads(lo_kvs("dump", "--config", "redis.yaml").out)
    assert on_redis == json.loads(lo_kvs("dump").out)


def test_redis_that_cannot_be_reached(lo_kvs: Any, tmp_path: Path) -> None:
    with RedisServer() as server:
        url = server.url
    (tmp_path / "creds.yaml").write_text(
        yaml.safe_dump(
            {
                "kvs": {"default": {"type": "redis"}},
                "redis_connection": {"redis_url": url, "redis_retry_for": 0.1},
            }
        )
    )
    write_study_log(tmp_path / "log", simulate(students=1, events=3))
    answer = lo_kvs("ingest", "log", *SHIPPED, "--json")
    assert answer.code == 4, answer
    assert json.loads(answer.out)["events"] == 0
    assert "Stopped: Redis is unreachable. Applied 0 events. Resume at log:1.\n" in answer.err


def states_of(tmp_path: Path) -> int:
    return sum(1 for _ in (tmp_path / ".lo_kvs").glob("*.json"))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_input_is_awaited(
    lo_kvs_process: Processes, tmp_path: Path, log: Path, sent: signal.Signals
) -> None:
    process = lo_kvs_process("ingest", *SHIPPED, "--json")
    assert process.stdin is not None
    process.stdin.write(log.read_text())
    process.stdin.flush()
    # What came is committed though the input is not at its end.
    wait_for(lambda: states_of(tmp_path) >= 20)
    process.send_signal(sent)
    assert process.wait(20) == 130
    out, err = process.communicate()
    found = json.loads(out)
    assert found["events"] == 60
    assert found["complete"] is False
    assert "Stopped: interrupted. Applied 60 events (through standard input:60). " in err
    assert "Resume at standard input:61.\n" in err
    assert "Traceback" not in err


def test_interrupted_during_a_batch(lo_kvs: Any, lo_kvs_process: Processes, tmp_path: Path) -> None:
    write_study_log(tmp_path / "log", simulate(students=20, events=30_000))
    process = lo_kvs_process("ingest", "log", *SHIPPED, "--json")
    wait_for(lambda: states_of(tmp_path) >= 200)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    found = json.loads(out)
    # Every event up to the place that is named is in the store, and no other.
    assert 0 < found["events"] < 30_000
    assert found["last"] == f"log:{found['events']}"
    assert counted(lo_kvs("dump").out) == found["events"]
    assert "finishing the current batch" in err
    assert "Traceback" not in err
