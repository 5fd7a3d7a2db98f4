"""The output of `lo-kvs copy`: its progress and its result."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from lo_kvs.cli.common import counted, say, show
from lo_kvs.plain_text import harmless

if TYPE_CHECKING:
    from rich.progress import Progress

    from lo_kvs.copying import Copy

#: Seconds between two progress lines if standard error is not a terminal.
LINE_S: Final = 10.0


class CopyReport:
    """Reports the progress of a copy on standard error: a bar on a terminal, otherwise lines."""

    def __init__(self, *, dry_run: bool) -> None:
        self._dry_run = dry_run
        self._began = self._reported = time.monotonic()
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = self._bar.add_task("", total=None, what="") if self._bar is not None else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def progressed(self, job: Copy) -> None:
        """Show how far the copy is."""
        if self._bar is not None and self._task is not None:
            done, total = (job.tally.seen, None) if job.checked is None else _checked(job)
            self._bar.update(self._task, completed=done, total=total, what=self._how_far(job))
        elif time.monotonic() - self._reported >= LINE_S:
            self._reported = time.monotonic()
            say(self._how_far(job))

    def copied(self, job: Copy) -> None:
        """All keys are copied; the check follows."""
        self._say(f"{self._how_far(job)}; checking")

    def stopped(self, job: Copy) -> None:
        """Report how far the copy got."""
        again = "" if self._dry_run else "; run the same command again to continue"
        self._say(f"lo-kvs: stopped: {self._how_far(job)}{again}")

    def conclude(self, job: Copy) -> int:
        """Print the result to standard output. Returns how many keys are not yet replicated."""
        tally = job.tally
        would = "would be " if self._dry_run else ""
        took = f"{_size(tally.size)} in {time.monotonic() - self._began:,.1f} s"
        first = (
            f"{counted(tally.copied, 'key')} {would}copied, {tally.replaced:,} {would}replaced, "
            f"{tally.equal:,} already equal, {tally.left + tally.foreign:,} {would}kept ({took})"
        )
        lines = [first]
        if tally.corrupt:
            verb = "copied" if not self._dry_run else "to be copied"
            lines.append(f"{counted(tally.corrupt, 'value')} not valid JSON, {verb} unchanged")
        checked = job.checked
        if checked is not None:
            if checked.caught_up:
                lines.append(f"{counted(checked.caught_up, 'key')} copied again")
            lines.append(
                f"checked: {counted(checked.source, 'key')} in the source, "
                f"{checked.target:,} in the target, {checked.equal:,} equal"
            )
            if checked.extra:
                lines.append(f"{counted(checked.extra, 'key')} only in the target")
        pending = tally.pending + (checked.pending if checked is not None else 0)
        if pending:
            lines.append(f"{counted(pending, 'key')} written, not yet replicated")
        for line in lines:
            show(line)
        for kind, count in job.differences.counts.items():
            names = job.differences.names[kind]
            shown = ", ".join(json.dumps(name) for name in names)  # a key may contain anything
            more = ", ..." if count > len(names) else ""
            say(f"lo-kvs: {counted(count, 'key')} {kind.value}: {shown}{more}")
        return pending

    def _how_far(self, job: Copy) -> str:
        if job.checked is not None:
            done, total = _checked(job)
            return f"checked {done:,} of {counted(total, 'key')}, {len(job.differences):,} differ"
        tally = job.tally
        if self._dry_run:
            return f"read {counted(tally.seen, 'key')}"
        passed = tally.seen - tally.copied - tally.replaced
        return (
            f"copied {counted(tally.copied + tally.replaced, 'key')} ({_size(tally.size)}), "
            f"skipped {passed:,}"
        )

    def _say(self, text: str) -> None:
        if self._bar is None:
            say(text)
        else:
            text = harmless(text, keep="\n\t")
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _checked(job: Copy) -> tuple[int, int]:
    done = 0 if job.checked is None else job.checked.source
    return done, max(done, job.tally.seen)


def _size(size: float) -> str:
    if size < 1000:
        return counted(round(size), "byte")
    if size < 1_000_000:
        return f"{size / 1000:,.1f} kB"
    return f"{size / 1_000_000:,.1f} MB"


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = [SpinnerColumn(), BarColumn(), TextColumn("{task.fields[what]}"), TimeElapsedColumn()]
    return Progress(*columns, console=Console(stderr=True), transient=True)
