"""Installs this folder, editable, and shows what takes the time: `python tools/install.py .[test]`.

The Makefile runs it with the Python of .venv. All that pip and the compilers print goes to
install.log in that environment. On a terminal one line for each step is rewritten in place; in
a pipe or a log there is a line for each step, and another one every `EVERY_S` seconds.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent
EVERY_S = 5
TAIL_LINES = 40
INTERRUPTED = 130

# What pip -v, Cython and setuptools print when they start something, and what it is.
BUILD_TOOLS = re.compile(r"\s*Installing build dependencies")
TRANSLATING = re.compile(r"\s*\[\s*\d+/\d+\] Cythonizing (\S+?\.pyx?)")
DOWNLOADING = re.compile(r"Collecting ([\w.-]+)")
COMPILING = re.compile(r"\s*building '([\w.]+)' extension")
NOT_COMPILED = re.compile(r"""\s*(?:warning: )?.*building extension ["']([\w.]+)["'] failed""")
INSTALLING = re.compile(r"Installing collected packages: (.*)")


def modules_to_compile() -> int:
    """The number of modules that setup.py compiles: each .pyx, each .py with a .pxd beside it."""
    source = ROOT / "src"
    typed = [path for path in source.rglob("*.pxd") if path.with_suffix(".py").exists()]
    return len([*source.rglob("*.pyx"), *typed])


def compiler_flags() -> str:
    """Python's own flags without debug information, which takes gcc a third more time."""
    flags = str(sysconfig.get_config_var("CFLAGS") or "-O2").split()
    return " ".join([*(flag for flag in flags if flag != "-g"), "-g0"])


class Steps:
    """Says which step each line of the output starts."""

    def __init__(self) -> None:
        self.not_compiled: set[str] = set()
        self._total = modules_to_compile()
        self._translated = 0
        self._compiled = 0

    def step(self, line: str) -> tuple[str, str] | None:
        """The step that `line` starts and how far it is, or `None`."""
        if BUILD_TOOLS.match(line):
            return "installing the build tools (setuptools, cython)", ""
        if found := TRANSLATING.match(line):
            self._translated += 1
            name = found[1].removeprefix("src/")
            return "translating to C", self._nth(self._translated, name)
        if found := DOWNLOADING.match(line):
            return "downloading dependencies", f": {found[1]}"
        if found := COMPILING.match(line):
            self._compiled += 1
            return "compiling", self._nth(self._compiled, found[1])
        if found := INSTALLING.match(line):
            return "installing dependencies", f": {found[1].count(',') + 1} packages"
        if found := NOT_COMPILED.match(line):
            self.not_compiled.add(found[1])
        return None

    def _nth(self, number: int, name: str) -> str:
        return f" {number} of {max(self._total, number)} modules: {name}"


class Display:
    """Shows steps with the seconds since the start, on standard error."""

    def __init__(self) -> None:
        self._began = self._shown = time.monotonic()
        self._rewrites = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._step = ""
        self._text = ""

    def show(self, step: str, progress: str) -> None:
        """Show how far `step` is; a new step gets a line of its own."""
        new, self._step, self._text = step != self._step, step, step + progress
        if self._rewrites:
            if new and self._shown != self._began:
                sys.stderr.write("\n")
            self.tick()
        elif new or time.monotonic() - self._shown >= EVERY_S:
            self._write("", "\n")

    def tick(self) -> None:
        """Show the seconds, where nothing else changes."""
        if self._rewrites and self._text:
            self._write("\r\x1b[K", "")
        elif self._text and time.monotonic() - self._shown >= EVERY_S:
            self._write("", "\n")

    def end(self, text: str) -> None:
        """Show the last line."""
        if self._rewrites and self._text:
            sys.stderr.write("\n")
        self._text = text
        self._write("", "\n")

    def _write(self, before: str, after: str) -> None:
        self._shown = time.monotonic()
        line = f"{self._shown - self._began:4.0f} s  {self._text}"
        if self._rewrites and not after:  # a line that wraps cannot be rewritten
            line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(f"{before}{line}{after}")
        sys.stderr.flush()


def install(what: str, log: Path) -> int:
    """Install `what` into the environment of this Python; returns the exit code."""
    environment = os.environ | {
        "CFLAGS": os.environ.get("CFLAGS") or compiler_flags(),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",  # setuptools warns of every editable install
    }
    pip = [sys.executable, "-m", "pip", "install", "--verbose", "--progress-bar", "off"]
    display, steps = Display(), Steps()
    display.show("starting pip", "")
    with log.open("w", encoding="utf-8") as kept:
        process = subprocess.Popen(
            [*pip, "--editable", what],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        if process.stdout is None:
            raise RuntimeError("subprocess.PIPE gave no pipe")
        try:
            for line in _lines(process.stdout):
                if line is None:
                    display.tick()
                    continue
                kept.write(line)
                if step := steps.step(line):
                    display.show(*step)
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it was interrupted as well
            display.end("interrupted; the same command starts again")
            return INTERRUPTED
    if code:
        display.end(f"pip failed; the end of {log}:")
        tail = log.read_text(encoding="utf-8").splitlines()[-TAIL_LINES:]
        sys.stderr.write("\n".join(tail) + "\n")
        return code
    display.end("installed")
    if steps.not_compiled:
        sys.stderr.write(
            f"not compiled: {len(steps.not_compiled)} modules; pure Python runs in their place, "
            f"which is slower. The compiler's messages are in {log}. "
            "On Debian: apt-get install gcc libc6-dev python3-dev\n"
        )
    return 0


def _lines(output: IO[str]) -> Iterator[str | None]:
    """The lines of `output`; `None` after each second without one."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in output:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=1)
        except queue.Empty:
            yield None
            continue
        if line is None:
            return
        yield line


if __name__ == "__main__":
    sys.exit(install(sys.argv[1], Path(sys.prefix) / "install.log"))
