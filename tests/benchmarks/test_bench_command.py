"""`lo-kvs bench`, as a user runs it, in a folder of the test's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
from typer.testing import CliRunner, Result

from lo_kvs.cli.bench import bench
from lo_kvs.kvs import InMemoryKVS
from lo_kvs.kvs.backend import Submit
from lo_kvs.simulate import simulate, write_study_log

QUICK = ["--sessions", "1,16", "--seconds", "0.02", "--rounds", "1"]
SOURCE = "org.mitros.writing_analytics"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(bench)
    result = CliRunner().invoke(app, [*QUICK, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_every_store_is_measured_beside_its_data(folder: Path, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("mine", b'"untouched"')
    config = folder / "creds.yaml"
    config.write_text(
        "kvs:\n"
        "  default: {type: stub}\n"
        "  files: {type: filesystem, path: store, fsync: false}\n"
        "  redis: {type: redis}\n"
        "  cache: {type: redis_ephemeral, expiry: 0.05}\n"
        f"redis_connection: {{redis_url: '{redis_url}'}}\n"
    )
    (folder / "store").mkdir()
    answer = run("--json", "figures.json", "--plot", "bench.svg")
    assert answer.exit_code == 0, answer.output
    found = json.loads((folder / "figures.json").read_text())
    assert [(f["store"], f["sessions"]) for f in found["figures"]] == [
        (store, sessions)
        for store in ("default", "files", "redis", "cache")
        for sessions in (1, 16, 0)
    ]
    assert all(f["events_s"]["median"] > 0 for f in found["figures"])
    on_redis = [f["event_bytes"] for f in found["figures"] if f["store"] in ("redis", "cache")]
    assert all(on_redis)
    assert (folder / "bench.svg").read_bytes().startswith(b"<?xml")
    # What was measured is gone, what was there is there.
    assert sorted(path.name for path in folder.iterdir()) == [
        "bench.svg",
        "creds.yaml",
        "figures.json",
        "store",
    ]
    assert not list((folder / "store").iterdir())
    with redis.Redis.from_url(redis_url) as client:
        left = [key for key in client.scan_iter() if not key.startswith(b"__lokvs:")]
        assert left == [b"mine"]
        assert client.get("mine") == b'"untouched"'


def test_own_logs_and_reducers(folder: Path) -> None:
    write_study_log(folder / "class.study.log", simulate(3, 90))
    (folder / "own_reducers.py").write_text(
        "from lo_kvs.stream_analytics.helpers import student_event_reducer\n"
        "@student_event_reducer(null_state={'n': 0})\n"
        "async def own(event, state):\n"
        "    return {'n': state['n'] + 1}, False\n"
        f"REDUCERS = [{{'context': {SOURCE!r}, 'function': own}}]\n"
    )
    (folder / "creds.yaml").write_text("kvs: {default: {type: stub}, other: {type: stub}}\n")
    answer = run("class.study.log", "--reducers", "own_reducers", "--store", "other")
    assert answer.exit_code == 0, answer.output
    assert "90 events" in answer.stderr
    assert "other" in answer.stdout
    assert "default" not in answer.stdout


def test_invalid_lines_are_reported(folder: Path) -> None:
    (folder / "creds.yaml").write_text("kvs: {default: {type: stub}}\n")
    log = folder / "mixed.log"
    write_study_log(log, simulate(2, 20))
    with log.open("ab") as file:
        file.write(b"not json\n" * 21 + b'{"client": {}}\n')
    (folder / "empty.log").touch()
    answer = run("--sessions", "1", "mixed.log", "empty.log")
    assert answer.exit_code == 0, answer.output
    lines = answer.stderr.splitlines()
    assert "skipped: mixed.log:21: not valid JSON: Expecting value at character 1" in lines
    skipped = [line for line in lines if line.startswith("skipped: ")]
    assert len(skipped) == 6
    assert skipped[-1] == "skipped: 16 more"
    assert "skipped 1 event that no reducer processes" in lines
    assert "empty.log: the file is empty" in lines


def test_lost_events_are_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "creds.yaml").write_text("kvs: {default: {type: stub}}\n")
    way = InMemoryKVS.submitter_for
    changes = 0

    def losing_way(store: InMemoryKVS, guard: str) -> Submit:
        def losing(change: Any, done: Any, deadline: float | None = None) -> None:
            nonlocal changes
            changes += 1
            if changes % 10:
                way(store, guard)(change, done)
            else:
                done(None)

        return losing

    monkeypatch.setattr(InMemoryKVS, "submitter_for", losing_way)
    answer = run()
    assert answer.exit_code == 1
    assert "lost or applied twice" in answer.stderr


def test_reducer_that_cannot_be_checked_is_reported(folder: Path) -> None:
    (folder / "odd_reducers.py").write_text(
        "import itertools\n"
        "from lo_kvs.stream_analytics.helpers import student_event_reducer\n"
        "numbers = itertools.count()\n"
        "@student_event_reducer(null_state=0)\n"
        "async def odd(event, state):\n"
        "    return next(numbers), False\n"
        f"REDUCERS = [{{'context': {SOURCE!r}, 'function': odd}}]\n"
    )
    (folder / "creds.yaml").write_text("kvs: {default: {type: stub}}\n")
    answer = run("--reducers", "odd_reducers")
    assert answer.exit_code == 0, answer.output
    assert "could not check that every event was applied once" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sessions", "many"], "--sessions many: expected positive numbers"),
        (["--store", "elsewhere"], "no store named 'elsewhere'"),
        (["no-such.log"], "no-such.log"),
        (["--reducers", "json"], "has no list REDUCERS"),
    ],
)
def test_wrong_usage(folder: Path, arguments: list[str], message: str) -> None:
    answer = run(*arguments)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert list(folder.iterdir()) == []


def test_store_that_does_not_answer(folder: Path) -> None:
    (folder / "creds.yaml").write_text(
        "kvs: {default: {type: redis}}\n"
        "redis_connection: {redis_port: 1, redis_timeout: 0.2, redis_retry_for: 0.2}\n"
    )
    answer = run()
    assert answer.exit_code == 4
    assert "127.0.0.1:1" in answer.stderr or "localhost:1" in answer.stderr
