"""What `lo-kvs ingest` shows while it runs: the progress, and the lines that are rejected."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from lo_kvs.cli.common import counted, say
from lo_kvs.cli.meter import Meter

if TYPE_CHECKING:
    from lo_kvs.ingest.event_log import EventLogs
    from lo_kvs.ingest.job import Reject, Tally

#: So many rejects of each kind are shown; the others are counted.
TOLD_MAX: Final = 5


class RejectsFailed(Exception):
    """The file of rejects cannot be written, so the run ends."""


class Report:
    """Shows the progress of a run over `logs`, and keeps its rejects in a file.

    rejects  the file, or `None`; line N of `FILE.why` says why line N of it was rejected

    Raises `OSError` if these files cannot be opened. `rejected` raises `RejectsFailed` if they
    cannot be written.
    """

    def __init__(self, logs: EventLogs, rejects: Path | None) -> None:
        self._logs = logs
        self._meter = Meter(logs.size)
        self._shown = {True: 0, False: 0}
        self._damage_shown = self._foreign_shown = 0
        self._path = rejects
        self._files = ExitStack()
        self._raw: BinaryIO | None = None
        self._why: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            # Imported here: it loads the stores, which --help does not need.
            from lo_kvs.output_files import appended

            why = self._path.with_name(f"{self._path.name}.why")
            with ExitStack() as files:
                self._raw = files.enter_context(appended(self._path))
                self._why = files.enter_context(appended(why))
                self._files = files.pop_all()
        self._meter.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._meter.__exit__(kind, error, traceback)
        self._files.close()

    def rejected(self, reject: Reject) -> None:
        """Show a reject, and keep its line."""
        line = f"{reject.item.place}: {reject.reason}"
        if self._raw is not None and self._why is not None:
            try:
                _write(self._raw, reject.item.raw + b"\n")
                _write(self._why, line.encode("utf-8", "backslashreplace") + b"\n")
            except OSError as error:
                reason = error.strerror or str(error)
                raise RejectsFailed(f"cannot write to {self._path}: {reason}") from None
        self._shown[reject.skipped] += 1
        if self._shown[reject.skipped] <= TOLD_MAX:
            self._meter.say(f"{'skipped' if reject.skipped else 'failed'}: {line}")

    def progressed(self, tally: Tally) -> None:
        """Show how far the run is."""
        self._meter.advanced(self._logs.consumed, tally)
        self._show_damage()

    def conclude(self) -> None:
        """Show what is known only at the end."""
        self._show_damage()
        for skipped, what in ((True, "skipped"), (False, "failed")):
            if self._shown[skipped] > TOLD_MAX:
                say(f"{what}: {self._shown[skipped] - TOLD_MAX:,} more{self._where()}")
        for name in self._logs.empty:
            say(f"{name}: there is nothing in it")
        for name, count in self._logs.nuls.items():
            say(f"{name}: skipped {counted(count, 'NUL byte')} between lines")

    def _where(self) -> str:
        return "; --rejects FILE keeps them" if self._path is None else f"; see {self._path}.why"

    def _show_damage(self) -> None:
        for damage in self._logs.damaged[self._damage_shown :]:
            self._meter.say(f"not read to its end: {damage}")
        self._damage_shown = len(self._logs.damaged)
        for kind in self._logs.foreign[self._foreign_shown :]:
            self._meter.say(f"not read: {kind}")
        self._foreign_shown = len(self._logs.foreign)


def _write(file: BinaryIO, data: bytes) -> None:
    """Write all of it: the file is unbuffered, so that nothing is lost when the process ends."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
