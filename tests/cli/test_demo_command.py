from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lo_kvs.reducers import event_count
from lo_kvs.simulate import SimulatedClass
from lo_kvs.stream_analytics.helpers import KeyField, KeyStateType, make_key

SMALL = ("--students", 3, "--events", 400, "--seed", 5)


def table(out: str) -> dict[str, list[str]]:
    """The rows of the table, by student."""
    rows = re.findall(r"^\W*(sim-student-\d+)(.*)$", out, re.MULTILINE)
    return {student: re.findall(r"[\d:,]+", rest) for student, rest in rows}


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
        assert row[2:] == [
            f"{number:,}"
            for number in (
                len(texts),
                sum(len(text.split()) for text in texts),
                sum(map(len, texts)),
            )
        ]
        minutes, seconds = map(int, row[1].split(":"))
        assert minutes * 60 + seconds > 0


def test_places_and_commands_that_it_names(lo_kvs: Any, tmp_path: Path) -> None:
    out = lo_kvs("demo", *SMALL).out
    keys = lo_kvs("keys").out.splitlines()
    assert f"They lie in {tmp_path / '.lo_kvs'}: {len(keys)} JSON files, " in out
    key = make_key(event_count, {KeyField.STUDENT: "sim-student-001"}, KeyStateType.EXTERNAL)
    assert json.loads(lo_kvs("get", key).out)["count"] == int(table(out)["sim-student-001"][0])


def test_second_run_replaces_the_first(lo_kvs: Any) -> None:
    lo_kvs("demo", "--students", 9, "--events", 300)
    answer = lo_kvs("demo", *SMALL)
    assert "states that an earlier demo had left" in answer.err
    students = re.findall(r"STUDENT:(\S+)", lo_kvs("keys").out)
    assert set(students) == set(table(answer.out))
    assert len(set(students)) == 3
    again = lo_kvs("demo", *SMALL)
    assert table(again.out) == table(answer.out)


def test_states_of_real_students_are_kept(lo_kvs: Any, tmp_path: Path) -> None:
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


def test_lines_for_redis_work(
    lo_kvs: Any, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).with_name("lo-kvs"))])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # as for one who called it by its path
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


def test_no_events(lo_kvs: Any) -> None:
    answer = lo_kvs("demo", "--events", 0)
    assert answer.code == 0, answer
    assert table(answer.out) == {}
