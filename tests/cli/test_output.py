"""What commands write: to terminals, pipes and files that others may have prepared."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROGRAM = [sys.executable, "-W", "error", "-c", "from lo_kvs.cli import app; app()"]
SHIPPED = ("--reducers", "lo_kvs.reducers")
#: ESC, BEL, DEL, CSI of C1, right-to-left override, isolate, line separator.
HOSTILE = "\x1b]0;pwn\x07 \x7f \x9b31m \u202e \u2066 \u2028 \U000e0041"
DANGEROUS = [char for char in HOSTILE if not char.isprintable()]


def on_terminal(folder: Path, *arguments: object, both: bool = True) -> tuple[int, str]:
    """Run a command with a terminal as its output; its exit code and what came there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs if both else subprocess.DEVNULL,
        env={**os.environ, "PYTHONUTF8": "1", "COLUMNS": "500"},
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return process.wait(60), b"".join(parts).decode()


def assert_harmless(text: str) -> None:
    assert "pwn" in text
    left = [char for char in DANGEROUS if char != "\x1b" and char in text]
    assert left == []
    assert "\x1b]" not in text  # a progress bar has escapes of its own


@pytest.fixture
def hostile(lo_kvs: Any, tmp_path: Path) -> Path:
    """A store with a key and a value that would do things to a terminal."""
    (tmp_path / "in.json").write_text(json.dumps({f"k{HOSTILE}": {"v": HOSTILE}}))
    assert lo_kvs("load", "in.json").code == 0
    return tmp_path


@pytest.mark.parametrize("command", [["keys"], ["keys", "--json"], ["dump"]])
def test_terminal_controls_in_keys_and_values_are_escaped(
    hostile: Path, command: list[str]
) -> None:
    code, shown = on_terminal(hostile, *command)
    assert code == 0
    assert_harmless(shown)
    if command != ["keys"]:
        parsed = json.loads(shown)
        assert parsed in (f"k{HOSTILE}", {f"k{HOSTILE}": {"v": HOSTILE}})


def test_get_escapes_terminal_controls(hostile: Path) -> None:
    code, shown = on_terminal(hostile, "get", f"k{HOSTILE}")
    assert code == 0
    assert_harmless(shown)
    assert json.loads(shown) == {"v": HOSTILE}


def test_piped_output_is_unchanged(lo_kvs: Any, hostile: Path) -> None:
    assert lo_kvs("keys").out == f"k{HOSTILE}\n"
    assert json.loads(lo_kvs("keys", "--json").out) == f"k{HOSTILE}"
    assert (
        HOSTILE.replace("\x1b", "\\u001b").replace("\x07", "\\u0007")
        in lo_kvs("get", f"k{HOSTILE}").out
    )
    assert json.loads(lo_kvs("dump").out) == {f"k{HOSTILE}": {"v": HOSTILE}}


REDUCERS = """
from lo_kvs.stream_analytics.helpers import student_event_reducer

@student_event_reducer(null_state={})
async def fails(event, state):
    raise ValueError(event["client"]["doc"])

REDUCERS = [{"context": "s", "function": fails}]
"""


def event(doc: str, source: object = "s") -> str:
    whole = {"client": {"event": "x", "doc": doc}, "metadata": {"source": source}}
    return json.dumps(whole) + "\n"


def test_messages_about_events_escape_terminal_controls(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "own_reducers.py").write_text(REDUCERS)
    name = f"log {HOSTILE}"
    (tmp_path / name).write_text(event(HOSTILE) + event("x", HOSTILE) + event("x", 7))
    options = ("-r", "own_reducers", "--rejects", "rejects")
    code, shown = on_terminal(tmp_path, "ingest", name, *options)
    assert code == 1
    assert_harmless(shown)
    answer = lo_kvs("ingest", name, *options)  # a program reads it
    assert answer.code == 1
    for text in (answer.out, answer.err, (tmp_path / "rejects.why").read_text()):
        assert [char for char in DANGEROUS if char in text] == []
    assert len(answer.err.splitlines()) == len({*answer.err.splitlines()}) >= 4
    assert (tmp_path / "rejects").read_text() == (tmp_path / name).read_text() * 2


@pytest.mark.parametrize("source", ["A" * 1_000_000, ["A" * 1_000_000], {"A" * 1_000_000: 1}])
def test_long_texts_are_shortened_in_messages(lo_kvs: Any, tmp_path: Path, source: object) -> None:
    (tmp_path / "own_reducers.py").write_text(REDUCERS)
    (tmp_path / "log").write_text(event("B" * 1_000_000) + event("x", source))
    answer = lo_kvs("ingest", "log", "-r", "own_reducers", "--rejects", "rejects")
    assert len(answer.err) < 3000
    assert (tmp_path / "rejects.why").stat().st_size < 2000
    assert "skipped: log:2: unknown metadata.source " in answer.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_encoding_of_the_output_will_do(
    lo_kvs: Any, tmp_path: Path, log: Path, encoding: str
) -> None:
    name = "caf\u00e9 \u96ea.log"
    (tmp_path / name).write_bytes(log.read_bytes() + b"nope\n")
    (tmp_path / "c.yaml").write_text("kvs: {default: {type: filesystem, path: \u96ea}}\n")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for command in (
        ["ingest", name, *SHIPPED],
        ["ingest", name, *SHIPPED, "--json"],
        ["keys"],
        ["check"],
        ["demo", "--students", "2", "--events", "50"],
    ):
        found = subprocess.run(
            [*PROGRAM, *command, "--config", "c.yaml"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert found.returncode in {0, 1}, found
        assert b"Traceback" not in found.stderr


def test_dump_file_is_private_and_follows_no_link(lo_kvs: Any, hostile: Path) -> None:
    victim = hostile / "victim"
    victim.write_text("precious")
    public = hostile / "public"
    public.mkdir()
    for name in ("states.json.part", "states.json", ".states.json.part"):
        (public / name).symlink_to(victim)
    assert lo_kvs("dump", public / "states.json").code == 0
    assert victim.read_text() == "precious"
    dumped = (public / "states.json").lstat()
    assert stat.S_ISREG(dumped.st_mode)
    assert stat.S_IMODE(dumped.st_mode) == 0o600


@pytest.mark.parametrize("name", ["rejects", "rejects.why"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_rejects_are_not_redirected(
    lo_kvs: Any, tmp_path: Path, log: Path, name: str, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if kind == "link":
        (tmp_path / name).symlink_to(victim)
    else:
        os.mkfifo(tmp_path / name)
    answer = lo_kvs("ingest", log, *SHIPPED, "--rejects", "rejects")
    assert answer.code == 2, answer
    assert answer.err.splitlines()[-1].startswith(f"lo-kvs: {name}: is ")
    assert victim.read_text() == "precious"
    assert json.loads(lo_kvs("dump").out) == {}


def test_rejects_are_private(lo_kvs: Any, tmp_path: Path, log: Path) -> None:
    assert lo_kvs("ingest", log, *SHIPPED, "--rejects", "rejects").code == 0
    for name in ("rejects", "rejects.why"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_log_that_is_also_the_rejects_file_is_rejected(
    lo_kvs: Any, tmp_path: Path, log: Path
) -> None:
    log.rename(tmp_path / "a.why")
    before = (tmp_path / "a.why").read_bytes()
    answer = lo_kvs("ingest", "a.why", *SHIPPED, "--rejects", "a")
    assert answer.code == 2
    assert "a.why: this file is also an input" in answer.err
    assert (tmp_path / "a.why").read_bytes() == before


def test_simulate_follows_no_link(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out.log").symlink_to(tmp_path / "victim")
    assert lo_kvs("simulate", "out.log", "--events", 5).code == 0
    assert (tmp_path / "victim").read_text() == "precious"
    assert len((tmp_path / "out.log").read_text().splitlines()) == 5


@pytest.mark.parametrize("command", [["dump"], ["keys"], ["get", "k"]])
def test_full_disk_under_standard_output_is_reported(
    lo_kvs: Any, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "in.json").write_text('{"k": 1}')
    assert lo_kvs("load", "in.json").code == 0
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run(
            [*PROGRAM, *command],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert found.returncode == 1
    assert found.stderr == "lo-kvs: cannot write to standard output: No space left on device\n"


def test_closed_standard_error_does_not_end_the_work(
    lo_kvs: Any, tmp_path: Path, log: Path
) -> None:
    log.write_text("nope\n" + log.read_text())
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [*PROGRAM, "ingest", str(log), *SHIPPED, "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=writer,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert found.returncode == 0
    assert json.loads(found.stdout)["events"] == 60


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["demo", "--path", "here", "--config", "c.yaml"], "name two stores; leave one of them"),
        (
            ["copy", "default", "b", "--dry-run", "--catch-up"],
            "--dry-run and --catch-up cannot be combined",
        ),
        (["keys", "-c", "a.yaml", "--config", "c.yaml"], "--config is given twice"),
        (["ingest", "x", *SHIPPED, "-r", "y"], "--reducers is given twice"),
        (["ingest", "x", *SHIPPED, "--rejects", "a", "--rejects", "b"], "--rejects is given twice"),
        (["simulate", "x", "--seed", "1", "--seed", "2"], "--seed is given twice"),
        (["bench", "-c", "c.yaml", "-s", "default", "-s", "default"], "--store default is given"),
        (["bench", "-c", "c.yaml", "--json", "nix/a"], "nix: No such file or directory"),
        (["bench", "-c", "c.yaml", "--json", "a", "--plot", "a"], "name the same file"),
        (["ingest", "x.log", *SHIPPED, "--rejects", "-"], "--rejects -: expected a file name"),
    ],
)
def test_options_that_would_be_ignored_are_rejected(
    lo_kvs: Any, tmp_path: Path, command: list[str], message: str
) -> None:
    stores = {name: {"type": "filesystem", "path": name} for name in ("default", "b")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"kvs": stores}))
    (tmp_path / "creds.yaml").write_text(yaml.safe_dump({"kvs": stores}))
    (tmp_path / "x.log").write_text(event("x"))
    answer = lo_kvs(*command)
    assert (answer.code, answer.out) == (2, ""), answer
    assert message in answer.err
    assert not (tmp_path / "default").exists()


def test_overlays_may_be_given_again(lo_kvs: Any, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("kvs: {default: {type: filesystem, path: here}}")
    (tmp_path / "here").mkdir()
    assert lo_kvs("keys", "--overlay", "a.yaml", "--overlay", "b.yaml").code == 0
