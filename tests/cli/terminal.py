"""A terminal for tests: commands run on a pty of some size, and what its screen shows."""

from __future__ import annotations

import codecs
import itertools
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAM = [sys.executable, "-W", "error", "-c", "from lo_kvs.cli import app; app()"]
#: A control sequence, such as "two lines up": its numbers and its letter.
CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")
HALF_CONTROL = re.compile(r"\x1b(\[[?\d;]*)?$")
TIMEOUT_S = 120


class Screen:
    """The lines that a terminal shows, for the few controls that programs of ours use."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines = [""]  # with those that have scrolled away
        self.row = self.column = 0

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            if control := CONTROL.match(text, at):
                self._control(control[1], control[2])
                at = control.end()
                continue
            self._put(text[at])
            at += 1

    def shown(self) -> list[str]:
        """The lines on the screen, without those above it."""
        return [line.rstrip() for line in self.lines[-self.rows :]]

    def text(self) -> str:
        """Everything, as scrolling back shows it."""
        return "\n".join(line.rstrip() for line in self.lines)

    def _put(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        elif char.isprintable():
            if self.column == self.columns:  # it wraps
                self._put("\n")
                self.column = 0
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1
        else:
            raise AssertionError(f"not expected on a terminal: {char!r}")

    def _control(self, numbers: str, letter: str) -> None:
        if letter == "A":
            top = max(len(self.lines) - self.rows, 0)
            self.row = max(self.row - int(numbers or 1), top)
        elif letter == "K":
            keep = 0 if numbers == "2" else self.column
            self.lines[self.row] = self.lines[self.row][:keep]
        elif letter not in {"m", "h", "l"}:  # colours, the cursor
            raise AssertionError(f"not expected on a terminal: {numbers}{letter}")


class OnTerminal:
    """A command that runs on a terminal. `output` is what it has written so far."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, screen: Screen) -> None:
        self.process = process
        self.screen = screen
        self.output = ""
        self.frames: list[list[str]] = []  # the screen after each read
        self._master = master
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._rest = ""

    def read_until(self, found: Callable[[OnTerminal], bool]) -> None:
        """Read until `found` is true of this command."""
        for _ in self._read():
            if found(self):
                return
        raise AssertionError(f"it ended before that:\n{self.screen.text()}")

    def wait(self) -> int:
        """Read to the end; the exit code."""
        for _ in self._read():
            pass
        return self.process.wait(TIMEOUT_S)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def _read(self) -> Iterator[None]:
        ends = time.monotonic() + TIMEOUT_S
        while time.monotonic() < ends:
            if not select.select([self._master], [], [], 1)[0]:
                continue
            try:
                part = os.read(self._master, 65536)
            except OSError:  # the other end is closed
                return
            if not part:
                return
            text = self._rest + self._decoder.decode(part)
            # A control sequence may be read in two parts.
            half = HALF_CONTROL.search(text)
            self._rest = half[0] if half else ""
            text = text.removesuffix(self._rest)
            self.output += text
            self.screen.feed(text)
            self.frames.append(self.screen.shown())
            yield
        self.process.kill()
        raise AssertionError(f"it did not end:\n{self.screen.text()}")


@contextmanager
def on_terminal(
    command: Sequence[object],
    folder: Path,
    *,
    columns: int = 80,
    rows: int = 24,
    program: Sequence[str] = PROGRAM,
    **environment: str,
) -> Iterator[OnTerminal]:
    """Run a command with a terminal of its own for all three streams."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (rows, columns))
    plain = {
        name: value
        for name, value in os.environ.items()
        if name not in {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "CI"}
    }
    # A shell has its background jobs ignore Ctrl-C, and these tests may run in one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*program, *map(str, command)],
            cwd=folder,
            env={**plain, "TERM": "xterm-256color", "PYTHONUTF8": "1", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    os.close(slave)
    try:
        yield OnTerminal(process, master, Screen(columns, rows))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def commands_of(out: str, heading: str) -> str:
    """The commands that are printed under a heading, as a script."""
    _, _, rest = out.partition(f"{heading}\n")
    lines = itertools.takewhile(lambda line: line.startswith("  "), rest.splitlines())
    return "\n".join(line.strip() for line in lines)
