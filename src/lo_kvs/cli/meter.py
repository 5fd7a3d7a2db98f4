"""The progress of a run, on standard error: a bar on a terminal, else lines or nothing."""

from __future__ import annotations

import contextlib
import os
import sys
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from lo_kvs.cli.common import counted, say
from lo_kvs.plain_text import harmless

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress, TaskID

    from lo_kvs.ingest.job import Tally

FIRST_LINE_S: Final = 1.0
#: A line comes when so many times the seconds of the last one have passed: a run of an hour
#: writes some forty lines.
NEXT_LINE: Final = 1.25


def draws() -> bool:
    """Whether standard error is a terminal on which a line can be drawn again."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in {"dumb", "unknown"}


class Meter:
    """Shows how far a run is.

    total  what `advanced` counts to, or `None` if unknown
    lines  write a line now and then where no bar can be drawn
    above  what stands above the bar, drawn again with it
    """

    def __init__(
        self, total: int | None, *, lines: bool = False, above: RenderableType | None = None
    ) -> None:
        self._total = total
        self._above = above
        self._notice = ""
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if draws():
            self._draw()
        self._lines = self._live is None and (lines or sys.stderr.isatty())
        self._next_line_s = FIRST_LINE_S
        self._began = monotonic()

    def __enter__(self) -> Self:
        self._began = monotonic()
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def advanced(self, done: int, tally: Tally) -> None:
        """Show that `done` of the total is finished."""
        if self._progress is not None and self._task is not None:
            self._progress.update(
                self._task, completed=done, events=tally.events, events_s=tally.events_s
            )
        elif self._lines:
            seconds = monotonic() - self._began
            if seconds >= self._next_line_s:
                self._next_line_s = seconds * NEXT_LINE + FIRST_LINE_S
                part = f" ({done / self._total:.0%})" if self._total else ""
                say(f"{seconds:.0f} s: {counted(tally.events, 'event')} applied{part}")

    def say(self, text: str) -> None:
        """Write a message, above the bar."""
        if self._live is None:
            say(text)
        else:
            text = harmless(text, keep="\n\t")
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def notice(self, text: str) -> None:
        """Show `text` below the bar until the end, or write it. A signal handler may call it."""
        self._notice = text  # the bar's own thread draws it
        if self._live is None:
            with contextlib.suppress(OSError):  # nobody can read it, and the work goes on
                os.write(2, f"{text}\n".encode())

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self._progress = _bar(console, known=self._total is not None)
        self._task = self._progress.add_task("", total=self._total, events=0, events_s=0)
        self._live = Live(
            console=console, get_renderable=self._shown, transient=True, refresh_per_second=5
        )

    def _shown(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        above = [] if self._above is None else [self._above]
        notice = [Text(self._notice, no_wrap=True, overflow="ellipsis")] if self._notice else []
        bar = [] if self._progress is None else [self._progress.get_renderable()]
        return Group(*above, *bar, *notice)


def _bar(console: Console, *, known: bool) -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = [
        SpinnerColumn(),
        *([BarColumn(bar_width=None)] if known else []),
        TextColumn("{task.fields[events]:,} events"),
        TextColumn("{task.fields[events_s]:,.0f}/s"),
        *([TimeRemainingColumn(compact=True), TextColumn("left")] if known else []),
    ]
    return Progress(*columns, console=console, expand=known, auto_refresh=False)
