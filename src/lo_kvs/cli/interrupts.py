"""Ctrl-C and SIGTERM: the first one asks a command to stop, the second one stops it at once."""

from __future__ import annotations

import atexit
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

    The second interrupt ends the process at once. It does not wait for work, stores or threads.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Restore the defaults: tests run several commands in one process."""
        self.count = 0
        self.cancel: Callable[[], object] | None = None
        self.asked: Callable[[], object] | None = None
        self.notice = "stopping; press Ctrl-C again to stop at once"
        self.report: Callable[[], str] | None = None

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals inside the block. Signals that were ignored stay ignored."""
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
            # After an interrupt the process ends: a second signal on that way must find this
            # handler, or it ends the process with another exit code.
            if not self.count:
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextlib.contextmanager
    def ending_by(
        self, asked: Callable[[], object], notice: str, report: Callable[[], str]
    ) -> Iterator[None]:
        """Inside the block, the first interrupt calls `asked`."""
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
        # Python ends with the default handlers: a second signal could change the exit code.
        atexit.register(_ignore_signals)
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


def _ignore_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _write(text: str) -> None:
    # Not through `sys.stderr`: the signal may have interrupted a write to it.
    with contextlib.suppress(OSError):
        os.write(2, text.encode(sys.getfilesystemencoding(), "backslashreplace"))


#: The interrupts of the command that runs in this process.
interrupts = Interrupts()
