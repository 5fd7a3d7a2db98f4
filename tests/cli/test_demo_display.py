"""What `lo-kvs demo` shows while it runs: on terminals, on dumb ones, and in a file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal import PROGRAM, OnTerminal, commands_of, on_terminal

from lo_kvs.cli import meter

CLASS = ("--students", 30, "--events", 20_000, "--seed", 5)
COLOUR = re.compile(r"\x1b\[[\d;]*\b(3[0-8]|4[0-8]|9[0-7]|10[0-7])\b[\d;]*m")
BAR = re.compile(r"([\d,]+) events +[\d,]+/s")


def applied(frame: list[str]) -> list[int]:
    """The numbers of events that the bars on a screen show: one, or none."""
    return [int(number.replace(",", "")) for number in BAR.findall("\n".join(frame))]


def rows(frame: list[str]) -> list[str]:
    return [line for line in frame if line.startswith("sim-student-")]


def assert_ended(run: OnTerminal) -> None:
    """The end stands below the beginning; of the bar and the live table nothing is left."""
    text = run.screen.text()
    assert text.count("student  ") == 1, text
    assert len(rows(text.splitlines())) == 30, text
    assert not BAR.search(text), text
    assert "Verified in the store: 20,000 of 20,000 events counted" in " ".join(text.split())


@pytest.mark.parametrize(
    ("columns", "lines", "heading", "shown"),
    [
        (80, 24, "student events documents words characters on task last active", 19),
        (40, 24, "student words on task", 19),
        (120, 50, "student events documents words characters on task last active", 30),
        (40, 8, "student words on task", 3),
    ],
)
def test_bar_and_table_move_on_a_terminal(
    tmp_path: Path, columns: int, lines: int, heading: str, shown: int
) -> None:
    with on_terminal(["demo", *CLASS], tmp_path, columns=columns, rows=lines) as run:
        assert run.wait() == 0, run.screen.text()
    bars = [found for frame in run.frames if (found := applied(frame))]
    assert all(len(found) == 1 for found in bars)  # never two bars on the screen
    numbers = [found[0] for found in bars]
    assert numbers[0] == 0  # it is there before the first event is applied
    assert numbers == sorted(numbers)
    assert len({*numbers}) >= 3
    tables = [frame for frame in run.frames if applied(frame) and rows(frame)]
    assert max(len(rows(frame)) for frame in tables) == shown
    headings = {" ".join(line.split()) for frame in tables for line in frame if "on task" in line}
    assert headings == {heading}
    assert len({tuple(rows(frame)) for frame in tables}) >= 2  # the table changes
    if shown < 30:
        assert any(f"... and {30 - shown} more students" in frame for frame in tables)
    assert_ended(run)


@pytest.mark.parametrize(("no_color", "coloured"), [("1", False), ("", True)])
def test_no_color_is_heeded(tmp_path: Path, no_color: str, coloured: bool) -> None:
    with on_terminal(["demo", *CLASS], tmp_path, NO_COLOR=no_color) as run:
        assert run.wait() == 0, run.screen.text()
    assert bool(COLOUR.search(run.output)) is coloured
    assert any(applied(frame) for frame in run.frames)
    assert_ended(run)


def test_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    with on_terminal(["demo", *CLASS], tmp_path, TERM="dumb") as run:
        assert run.wait() == 0, run.screen.text()
    assert "\x1b" not in run.output
    assert "\r" not in run.output.replace("\r\n", "")  # the terminal's own
    assert_ended(run)


def test_file_gets_no_control_characters(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        ended = subprocess.run(
            [*PROGRAM, "demo", *map(str, CLASS)],
            cwd=tmp_path,
            env={**os.environ, "TERM": "xterm-256color"},
            stdout=out,
            stderr=out,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 0
    text = (tmp_path / "out").read_text()
    assert [char for char in text if not char.isprintable() and char != "\n"] == []
    assert max(map(len, rows(text.splitlines()))) <= 80
    assert not BAR.search(text)


def test_lines_come_now_and_then(lo_kvs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(100))
    monkeypatch.setattr(meter, "monotonic", lambda: next(seconds))
    answer = lo_kvs("demo", "--students", 3, "--events", 25_000, "--seed", 5)
    assert answer.code == 0, answer
    lines = [line for line in answer.err.splitlines() if " s: " in line]
    assert lines[0] == "1 s: 500 events applied (2%)"
    seen = [int(line.partition(" s")[0]) for line in lines]
    assert seen == [1, 3, 5, 8]  # of eight batches, a second each
    assert lines[-1] == "8 s: 25,000 events applied (100%)"


def test_ingest_writes_no_lines_into_a_log(
    lo_kvs: Any, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meter, "FIRST_LINE_S", 0.0)
    answer = lo_kvs("ingest", log, "--reducers", "lo_kvs.reducers")
    assert answer.code == 0, answer
    assert "applied" not in answer.err


def test_interrupt_says_what_is_stored_and_how_to_go_on(
    lo_kvs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = 25_000
    options = ("--students", 6, "--events", events, "--seed", 5)
    program = [str(Path(sys.executable).with_name("lo-kvs"))]
    with on_terminal(
        ["demo", *options],
        tmp_path,
        columns=400,
        program=program,
        PATH="/usr/bin:/bin",  # it is called by its path, and prints that
    ) as run:
        run.read_until(lambda run: bool(applied(run.screen.shown()) > [0]))
        run.interrupt()
        assert run.wait() == 130, run.screen.text()
    text = run.screen.text()
    assert not BAR.search(text)
    assert "\x1b[?25h" in run.output  # the cursor is there again
    assert "Traceback" not in text
    found = re.search(r"Stopped: interrupted\. ([\d,]+) of 25,000 events are applied", text)
    assert found, text
    count = int(found[1].replace(",", ""))
    assert 0 < count < events
    assert f"Verified in the store: {count:,} of {count:,} events counted, none lost" in text
    script = commands_of(text, f"Apply the other {events - count:,} events:")
    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    continued = json.loads(lo_kvs("dump").out)
    again = commands_of(text, "Start again from the first event:")
    subprocess.run(["sh", "-e", "-c", again], cwd=tmp_path, check=True, capture_output=True)
    assert json.loads(lo_kvs("dump").out) == continued


def test_interrupt_in_a_pipe(lo_kvs_process: Any) -> None:
    process = lo_kvs_process("demo", "--students", 6, "--events", 1_000_000)
    while " applied " not in (line := process.stderr.readline()):
        assert line, process.communicate()
    process.send_signal(2)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "finishing the current batch; press Ctrl-C again to stop at once\n" in err
    assert "lo-kvs: Stopped: interrupted. " in err
    assert "Start again from the first event:\n" in out
    assert "\x1b" not in out + err
