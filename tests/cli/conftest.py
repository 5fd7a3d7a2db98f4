"""`lo-kvs` as a user runs it, in a folder of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from typer.testing import CliRunner

from lo_kvs.cli import app
from lo_kvs.simulate import simulate, write_study_log

PROGRAM = [sys.executable, "-W", "error", "-c", "from lo_kvs.cli import app; app()"]


class Answer:
    """What a command printed, and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


LoKvs: TypeAlias = Callable[..., Answer]


@pytest.fixture
def lo_kvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoKvs]:
    """Run a command in this process, in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # --reducers puts the folder there
    monkeypatch.delitem(sys.modules, "own_reducers", raising=False)  # another test's

    def run(*arguments: object) -> Answer:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    yield run
    # The next test's module of the same name is another one.
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def lo_kvs_process(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start a command as a process of its own, in `tmp_path`, with pipes around it."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        # A shell has its background jobs ignore Ctrl-C, and these tests may run in one: whoever
        # starts with that ignored is right not to heed it.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return subprocess.Popen(
                [*PROGRAM, *(str(argument) for argument in arguments)],
                cwd=tmp_path,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    return start


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 60 events of two students."""
    path = tmp_path / "class.study.log"
    write_study_log(path, simulate(students=2, events=60, seed=3))
    return path
