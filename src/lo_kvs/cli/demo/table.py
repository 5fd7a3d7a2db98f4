"""The table of the class, as wide and as high as the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from lo_kvs.cli.demo.rows import Row

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table

GAP: Final = 2  # characters between two columns
NOW_S: Final = 5  # a student who did something so short a time ago is active now
#: Lines of a terminal that a live table leaves to other things: its heading, the line about
#: students who are not shown, the bar, a notice, the line of the cursor.
OTHER_LINES: Final = 5


class Column(NamedTuple):
    """A column: its heading, its cells, and its rank. Columns of a high rank go first."""

    name: str
    rank: int
    cell: Callable[[Row, float], str]


COLUMNS: Final = (
    Column("student", 0, lambda row, _: row.student),
    Column("events", 5, lambda row, _: f"{row.events:,}"),
    Column("documents", 4, lambda row, _: f"{row.documents:,}"),
    Column("words", 1, lambda row, _: f"{row.words:,}"),
    Column("characters", 6, lambda row, _: f"{row.characters:,}"),
    Column("on task", 2, lambda row, _: _duration(row.seconds)),
    Column("last active", 3, lambda row, now: _ago(row.last_s, now)),
)


class LiveTable:
    """A table that changes while it is shown; `rows` are what it shows."""

    def __init__(self, students: int) -> None:
        self.rows: Sequence[Row] = ()
        self._students = students

    @property
    def rows_max(self) -> int:
        """The rows that fit on the terminal now."""
        return max(shutil.get_terminal_size().lines - OTHER_LINES, 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = self.rows[: max(console.size.height - OTHER_LINES, 1)]
        yield table_of(rows, options.max_width)
        left = self._students - len(rows)
        if rows and left > 0:
            yield f"... and {left:,} more students"


def table_of(rows: Sequence[Row], width: int) -> Table:
    """A table of `rows`, with the columns that fit into `width` characters."""
    from rich.table import Table

    now = max((row.last_s for row in rows if row.last_s is not None), default=0.0)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold")
    shown = {column.name: [column.cell(row, now) for row in rows] for column in COLUMNS}
    names = _fitting(shown, width)
    for name in names:
        table.add_column(name, justify="left" if name == "student" else "right", no_wrap=True)
    for cells in zip(*(shown[name] for name in names), strict=True):
        table.add_row(*cells)
    return table


def print_table(rows: Sequence[Row], students: int) -> None:
    """Print the table on standard output, with as many columns as the terminal has room for."""
    from rich.console import Console

    width = shutil.get_terminal_size().columns
    console = Console(width=width, highlight=False)
    console.print(table_of(rows, width))
    if students > len(rows):
        console.print(f"... and {students - len(rows):,} more students")


def _fitting(shown: dict[str, list[str]], width: int) -> list[str]:
    """The names of the columns that fit, in their order; the first one is always there."""
    wide = {name: max(map(len, (name, *cells))) + GAP for name, cells in shown.items()}
    kept = {COLUMNS[0].name}
    room = width - wide[COLUMNS[0].name] + GAP
    for column in sorted(COLUMNS[1:], key=lambda column: column.rank):
        room -= wide[column.name]
        if room < 0:
            break
        kept.add(column.name)
    return [column.name for column in COLUMNS if column.name in kept]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"


def _ago(last_s: float | None, now: float) -> str:
    if last_s is None:
        return ""
    seconds = int(now - last_s)
    if seconds < NOW_S:
        return "now"
    return f"{seconds} s ago" if seconds < 60 else f"{seconds // 60} min ago"
