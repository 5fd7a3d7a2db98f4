"""Ctrl-C and SIGTERM: the first one asks a command to end, the second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Final, NoReturn

from lo_kvs.plain_text import harmless

INTERRUPTED: Final = 130  # 128 + SIGINT
_SHOW_CURSOR: Final = "\x1b[?25h"  # a progress bar hides it


class Interrupts:
    """The interrupts of one command.

    cancel  ends the work that is under way; without it the first interrupt raises
            KeyboardInterrupt where the command is
    asked   called at the first interrupt instead, where a command has its own way to end
    notice  what the user reads then; empty if `asked` shows it
    report  called at the second interrupt, for the last message of the command

    The second interrupt waits for nothing: not for the work, a store, or a thread.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what an earlier command left: tests run several in one process."""
        self.count = 0
        self.cancel: Callable[[], object] | None = None
        self.asked: Callable[[], object] | None = None
        self.notice = "stopping; press Ctrl-C again to stop at once"
        self.report: Callable[[], str] | None = None

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside; one that the process was started to ignore stays ignored."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [
            number
            for number in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(number) is not signal.SIG_IGN
        ]
        before = {number: signal.signal(number, self._came) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def ending_by(
        self, asked: Callable[[], object], notice: str, report: Callable[[], str]
    ) -> Iterator[None]:
        """Inside, the first interrupt calls `asked`."""
        before = self.asked, self.notice, self.report
        self.asked, self.notice, self.report = asked, notice, report
        try:
            yield
        finally:
            self.asked, self.notice, self.report = before

    def _came(self, _number: int, _frame: object) -> None:
        self.count += 1
        if self.count > 1:
            self._end()
        if self.notice:
            _write(f"\n{self.notice}\n")
        end = self.asked or self.cancel
        if end is None:
            raise KeyboardInterrupt
        end()

    def _end(self) -> NoReturn:
        cursor = _SHOW_CURSOR if os.isatty(2) else ""
        try:
            text = self.report() if self.report is not None else "interrupted"
            _write(f"{cursor}\nlo-kvs: {harmless(text)}\n")
        finally:
            os._exit(INTERRUPTED)


def _write(text: str) -> None:
    # Not through `sys.stderr`: the signal may have come in the middle of its work.
    with contextlib.suppress(OSError):
        os.write(2, text.encode(sys.getfilesystemencoding(), "backslashreplace"))


#: Those of the command that runs in this process.
interrupts = Interrupts()
