from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal import commands_of

from lo_kvs.cli.common import Failure, Opened
from lo_kvs.cli.demo import streaming
from lo_kvs.cli.demo.simulated import Class
from lo_kvs.cli.interrupts import interrupts
from lo_kvs.cli.meter import Meter
from lo_kvs.ingest.event_log import Item
from lo_kvs.ingest.job import Ingest
from lo_kvs.kvs.memory import InMemoryKVS
from lo_kvs.reducers import document_text, event_count
from lo_kvs.simulate import SimulatedClass
from lo_kvs.stream_analytics.helpers import EventField, KeyField, KeyStateType, make_key
from lo_kvs.stream_analytics.pipeline import Pipeline

SMALL = ("--students", 3, "--events", 400, "--seed", 5)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are printed as for a user who called lo-kvs by its path."""
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).with_name("lo-kvs"))])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def table(out: str) -> dict[str, list[str]]:
    """The rows of the table, by student."""
    rows = re.findall(r"^(sim-student-\d+)(.*)$", out, re.MULTILINE)
    return {student: rest.split() for student, rest in rows}


def test_table_shows_the_class(lo_kvs: Any) -> None:
    answer = lo_kvs("demo", *SMALL)
    assert answer.code == 0, answer
    simulated = SimulatedClass(students=3, events=400, seed=5)
    counts: dict[str, int] = {}
    for event in simulated.events():
        student = event["metadata"]["auth"]["safe_user_id"]
        counts[student] = counts.get(student, 0) + 1
    rows = table(answer.out)
    assert {student: int(row[0]) for student, row in rows.items()} == counts
    for student, row in rows.items():
        texts = [text for (who, _), text in simulated.texts.items() if who == student]
        assert row[1:4] == [
            f"{number:,}"
            for number in (
                len(texts),
                sum(len(text.split()) for text in texts),
                sum(map(len, texts)),
            )
        ]
        minutes, seconds = map(int, row[4].split(":"))
        assert minutes * 60 + seconds > 0
    assert ["now"] in [row[5:] for row in rows.values()]
    assert (
        "Verified in the store: 400 of 400 events counted, none lost, none doubled." in answer.out
    )


def test_places_and_commands_that_it_names(lo_kvs: Any, tmp_path: Path) -> None:
    out = lo_kvs("demo", *SMALL).out
    keys = lo_kvs("keys").out.splitlines()
    assert f"The data is in {tmp_path / '.lo_kvs'}: {len(keys)} JSON files, " in out
    key = make_key(event_count, {KeyField.STUDENT: "sim-student-001"}, KeyStateType.EXTERNAL)
    assert json.loads(lo_kvs("get", key).out)["count"] == int(table(out)["sim-student-001"][0])


def test_second_run_replaces_the_first(lo_kvs: Any) -> None:
    lo_kvs("demo", "--students", 9, "--events", 300)
    answer = lo_kvs("demo", *SMALL)
    assert "states of an earlier demo" in answer.err
    students = re.findall(r"STUDENT:(\S+)", lo_kvs("keys").out)
    assert set(students) == set(table(answer.out))
    assert len(set(students)) == 3
    again = lo_kvs("demo", *SMALL)
    assert table(again.out) == table(answer.out)


def test_states_of_real_students_are_left_alone(lo_kvs: Any, tmp_path: Path) -> None:
    real = make_key(event_count, {KeyField.STUDENT: "s1"}, KeyStateType.EXTERNAL)
    others = {real: {"count": 7}, "STUDENT:sim-student-000": 1, "notes": 2}
    (tmp_path / "others.json").write_text(json.dumps(others))
    lo_kvs("load", "others.json")
    for _ in range(2):
        lo_kvs("demo", *SMALL)
    found = json.loads(lo_kvs("dump").out)
    assert {key: found.get(key) for key in others} == others


def test_creds_file_here_does_not_count(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "creds.yaml").write_text("kvs: {default: {type: nonsense}}")
    answer = lo_kvs("demo", *SMALL, "--path", "own")
    assert answer.code == 0, answer
    assert (tmp_path / "own").is_dir()


def test_lines_for_redis_work(lo_kvs: Any, program: None, tmp_path: Path, redis_url: str) -> None:
    answer = lo_kvs("demo", *SMALL)
    head, _, lines = answer.out.partition("The same on Redis")
    first, second = lines.strip().splitlines()[1:]
    script = first.replace("redis://localhost:6379/0", redis_url) + "\n" + second
    ended = subprocess.run(
        ["sh", "-e", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "prefix demo:" in ended.stderr
    assert table(ended.stdout) == table(head)
    on_redis = json.loads(lo_kvs("dump", "--config", "redis-demo.yaml").out)
    assert on_redis == json.loads(lo_kvs("dump").out)


def run_script(script: str, folder: Path) -> str:
    """Run it as a user would who pastes it; returns what it prints."""
    ended = subprocess.run(
        ["sh", "-e", "-c", script], cwd=folder, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended
    return ended.stdout


@pytest.mark.parametrize(
    "options",
    [(), ("--path", "it's here"), ("--config", "own settings.yaml", "--store", "second")],
    ids=["default", "path", "config"],
)
@pytest.mark.parametrize("creds", [False, True])
def test_three_commands_work_as_printed(
    lo_kvs: Any, program: None, tmp_path: Path, options: tuple[str, ...], creds: bool
) -> None:
    other = {name: {"type": "filesystem", "path": name} for name in ("default", "second")}
    (tmp_path / "own settings.yaml").write_text(json.dumps({"kvs": other}))
    if creds:
        (tmp_path / "creds.yaml").write_text("kvs: {default: {type: filesystem, path: other}}")
    answer = lo_kvs("demo", *SMALL, *options)
    script = commands_of(answer.out, "Try next:")
    assert script.count("\n") == (3 if "echo" in script else 2)
    shown = run_script(script, tmp_path)
    assert "External,lo_kvs.reducers.text.document_text" in shown
    simulated = SimulatedClass(3, 400, 5)
    list(simulated.events())
    assert json.dumps(simulated.texts["sim-student-000", "sim-doc-000-0"])[1:-1] in shown
    dumped = json.loads((tmp_path / "class.json").read_text())
    assert len(dumped) == int(re.findall(r": (\d+) JSON files", answer.out)[0])


def test_memory_store_has_no_commands(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("kvs: {default: {type: stub}}")
    answer = lo_kvs("demo", *SMALL, "--config", "c.yaml")
    assert answer.code == 0, answer
    assert "The data was in the memory of this process." in answer.out
    assert "Try next" not in answer.out


@pytest.mark.parametrize(("change", "why"), [(1, "1 too many"), (-2, "2 lost")])
def test_counts_that_differ_are_reported(
    lo_kvs: Any, monkeypatch: pytest.MonkeyPatch, change: int, why: str
) -> None:
    real = streaming.stream

    def counted(state: Any) -> Any:
        return {"count": state["count"] + change}

    key = make_key(event_count, {KeyField.STUDENT: "sim-student-001"}, KeyStateType.EXTERNAL)

    async def changed(simulated: Class, target: Opened, again: str) -> Ingest:
        job = await real(simulated, target, again)
        await target.store.update(key, counted)
        return job

    monkeypatch.setattr(streaming, "stream", changed)
    answer = lo_kvs("demo", *SMALL)
    assert answer.code == 1, answer
    assert f"NOT as sent: the store counts {400 + change} of 400 events.\n" in answer.out
    assert f"({why})\n" in answer.out
    assert "Verified" not in answer.out


def test_texts_that_differ_are_reported(lo_kvs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = streaming.stream
    fields: dict[Any, object] = {
        KeyField.STUDENT: "sim-student-000",
        EventField("doc_id"): "sim-doc-000-0",
    }

    async def changed(simulated: Class, target: Opened, again: str) -> Ingest:
        job = await real(simulated, target, again)
        await target.store.remove(make_key(document_text, fields, KeyStateType.EXTERNAL))
        return job

    monkeypatch.setattr(streaming, "stream", changed)
    answer = lo_kvs("demo", *SMALL)
    assert answer.code == 1, answer
    assert "sim-student-000: the text of sim-doc-000-0 is not what was typed\n" in answer.out


def test_lost_store_ends_with_4_and_says_how_far_it_came(lo_kvs: Any) -> None:
    class Closing(Class):
        def batches(self) -> Iterator[list[Item]]:
            source = super().batches()
            yield next(source)
            with pytest.raises(StopIteration):
                store.aclose().send(None)
            yield next(source)

    async def work() -> None:
        target = Opened(store, "default", "stub", "")
        await streaming.stream(Closing(3, 1000, 5), target, "AGAIN")

    store = InMemoryKVS()
    with pytest.raises(Failure, match="Start again with: AGAIN") as failed:
        asyncio.run(work())
    assert failed.value.code == 4
    assert "Stopped: the store was closed: " in str(failed.value)
    assert "500 of 1,000 events are applied." in str(failed.value)


def test_second_interrupt_reports_the_batch_under_way() -> None:
    simulated = Class(3, 900, 5)
    job = Ingest(Pipeline.of_module("lo_kvs.reducers"), InMemoryKVS())
    batch = next(simulated.batches())
    with streaming._interrupts(job, simulated, Meter(900)):
        report = interrupts.report
        assert report is not None
        job.tally.events = 7
        assert report() == "Stopped: interrupted twice. 7 of 900 events are applied."
        job.tally.under_way = batch[0], batch[-1]
        assert report() == (
            "Stopped: interrupted twice. 7 of 900 events are applied; of events 1 to 500, "
            "any number may be applied."
        )


def test_no_events(lo_kvs: Any) -> None:
    answer = lo_kvs("demo", "--events", 0)
    assert answer.code == 0, answer
    assert table(answer.out) == {}
