"""`tools/install.py`: what `make` shows while it installs and compiles."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.terminal import on_terminal
from tools import install

#: What pip prints with --verbose: build tools, Cython, dependencies, compilers.
OUTPUT = """\
Obtaining file:///project
  Installing build dependencies: started
  [1/2] Cythonizing src/lo_kvs/kvs/codec/_c.pyx
  [2/2] Cythonizing src/lo_kvs/stream_analytics/pipeline.py
Collecting redis>=8.1
Collecting hiredis>=3.2
  building 'lo_kvs.kvs.codec._c' extension
  gcc -c src/lo_kvs/kvs/codec/_c.c
  building 'lo_kvs.stream_analytics.pipeline' extension
Installing collected packages: redis, hiredis, lo-kvs
Successfully installed
"""
#: A pip that prints this, a part of it, or fails.
PIP = """
import sys, time
for line in OUTPUT.splitlines():
    print(line, flush=True)
    time.sleep(PAUSE)
sys.exit(CODE)
"""
COMPILED = len(list(Path(install.ROOT, "src").rglob("*.pyx"))) + len(
    [path for path in Path(install.ROOT, "src").rglob("*.pxd") if path.with_suffix(".py").exists()]
)

INSTALL = """
import pathlib, sys
from tools.install import install
sys.exit(install(".", pathlib.Path(sys.argv[1])))
"""
PROGRAM = [sys.executable, "-c", INSTALL]


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A folder in which `python -m pip` is a program that prints OUTPUT."""
    write_pip(tmp_path, OUTPUT)
    return tmp_path


def write_pip(folder: Path, output: str, code: int = 0, pause: float = 0.0) -> None:
    program = PIP.replace("OUTPUT", repr(output)).replace("CODE", str(code))
    (folder / "pip.py").write_text(program.replace("PAUSE", str(pause)))


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, str(folder / "install.log")],
        env={**os.environ, "PYTHONPATH": f"{folder}:{install.ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_log_gets_a_line_for_each_step(fake: Path) -> None:
    ended = run(fake)
    assert ended.returncode == 0, ended
    assert [line.partition(" s  ")[2] for line in ended.stderr.splitlines()] == [
        "starting pip",
        "installing the build tools (setuptools, cython)",
        f"translating to C 1 of {COMPILED} modules: lo_kvs/kvs/codec/_c.pyx",
        "downloading dependencies: redis",
        f"compiling 1 of {COMPILED} modules: lo_kvs.kvs.codec._c",
        "installing dependencies: 3 packages",
        "installed",
    ]
    assert "\x1b" not in ended.stderr
    assert (fake / "install.log").read_text() == OUTPUT


def test_terminal_shows_each_module_on_one_line(fake: Path) -> None:
    write_pip(fake, OUTPUT, pause=0.1)
    with on_terminal(
        ["install.log"],
        fake,
        columns=40,
        program=PROGRAM,
        PYTHONPATH=f"{fake}:{install.ROOT}",
    ) as shown:
        assert shown.wait() == 0, shown.screen.text()
    assert "compiling 1 of" in shown.output
    text = shown.screen.text()
    assert "compiling 1 of" not in text  # the second one replaced it
    assert f"compiling 2 of {COMPILED}" in text
    assert "downloading dependencies: hired" in text
    assert len(text.strip().splitlines()) == 7


def test_failure_shows_the_end_of_the_log(fake: Path) -> None:
    write_pip(fake, OUTPUT + "ERROR: no matching distribution\n", code=1)
    ended = run(fake)
    assert ended.returncode == 1
    assert f"pip failed; the end of {fake / 'install.log'}:\n" in ended.stderr
    assert ended.stderr.endswith("ERROR: no matching distribution\n")


def test_modules_that_are_not_compiled_are_counted(fake: Path) -> None:
    failed = 'warning: build_ext: building extension "lo_kvs.kvs.codec._c" failed: no gcc\n'
    write_pip(fake, OUTPUT + 2 * failed)
    ended = run(fake)
    assert ended.returncode == 0
    assert "not compiled: 1 modules; pure Python runs in their place" in ended.stderr


def test_seconds_go_on_while_nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    display = install.Display()
    display.show("compiling", " 1 of 2 modules: a")
    for now in (101.0, 104.0, 106.0, 107.0, 111.5):  # noqa: B007 - the clock reads it
        display.tick()
    seconds = [line.split()[0] for line in written.getvalue().splitlines()]
    assert seconds == ["0", "6", "12"]  # at most every EVERY_S


def test_flags_of_the_compiler_are_those_of_python_without_debug_information() -> None:
    flags = install.compiler_flags().split()
    assert "-g" not in flags
    assert flags[-1] == "-g0"
    assert any(flag.startswith("-O") for flag in flags)
