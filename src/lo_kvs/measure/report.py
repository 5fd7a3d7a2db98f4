"""The lines of a report: figures with baselines and targets, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from lo_kvs.measure.timing import Middle, Run, middle, ratio

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

RATIO: Final = "ratio"


@dataclass(frozen=True)
class Target:
    """A target for a figure or its ratio: `at least 0.7` or `at most 5000`."""

    bound: Literal["at least", "at most"]
    value: float
    of: Literal["ratio", "figure"] = "ratio"

    def met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        return value >= self.value if self.bound == "at least" else value <= self.value

    def __str__(self) -> str:
        sign = "≥" if self.bound == "at least" else "≤"
        return f"{sign} {self.value:,g}" + (" x" if self.of == RATIO else "")


@dataclass(frozen=True)
class Line:
    """One comparison.

    row       the row of the targets that it belongs to
    work      what was done
    unit      of `figure` and `against`
    figure    ours: the median over the rounds
    baseline  what it is compared with; empty where it stands alone
    against   the baseline's figure
    ratio     ours by the baseline's, round by round
    """

    row: str
    work: str
    unit: str
    figure: Middle
    baseline: str = ""
    against: Middle | None = None
    ratio: Middle | None = None
    target: Target | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; `None` where there is none."""
        if self.target is None:
            return None
        value = self.figure if self.target.of == "figure" else self.ratio
        return value is not None and self.target.met(value.median)

    def as_json(self) -> dict[str, Any]:
        """The line as JSON: a `Middle` is an object, too."""
        found = asdict(self)
        for name in ("figure", "against", "ratio"):
            value: Middle | None = getattr(self, name)
            found[name] = None if value is None else value._asdict()
        return {**found, "met": self.met}


@dataclass(frozen=True)
class Chart:
    """Curves for a plot: `series` maps a name to its points (x, y)."""

    name: str
    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float, float]]]
    log_x: bool = True
    log_y: bool = True


@dataclass
class Result:
    """What a row found out. `sizes` are the bytes of the states that it worked on."""

    lines: list[Line] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)


def events_s(run: Run) -> float:
    """Events a second of a run."""
    return run.events_s


def latency_us(quantile: float) -> Callable[[Run], float]:
    """The latency at `quantile` of a run, in microseconds."""
    return lambda run: run.latency_us(quantile)


def compare(
    row: str,
    work: str,
    runs: dict[str, list[Run]],
    ours: str,
    baseline: str,
    *,
    of: Callable[[Run], float] = events_s,
    unit: str = "events/s",
    target: Target | None = None,
    note: str = "",
) -> Line:
    """The line that compares the contestants `ours` and `baseline` of `runs`."""
    mine = [of(run) for run in runs[ours]]
    theirs = [of(run) for run in runs[baseline]]
    return Line(
        row,
        work,
        unit,
        middle(mine),
        baseline,
        middle(theirs),
        ratio(mine, theirs),
        target,
        note,
    )


def table(lines: Iterable[Line], title: str) -> Table:
    """The lines as text. A ratio is followed by its minimum and maximum."""
    from rich.table import Table

    made = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in ("row", "work", "figure", "unit", "baseline", "its figure", "ratio", "target"):
        right = name in ("figure", "its figure", "ratio")
        made.add_column(name, justify="right" if right else "left", overflow="fold")
    made.add_column("met")
    for line in lines:
        made.add_row(
            line.row,
            line.work + (f" ({line.note})" if line.note else ""),
            shown(line.figure.median),
            line.unit,
            line.baseline,
            "" if line.against is None else shown(line.against.median),
            "" if line.ratio is None else _spread(line.ratio),
            "" if line.target is None else str(line.target),
            {True: "yes", False: "NO", None: ""}[line.met],
        )
    return made


def shown(value: float) -> str:
    """A figure with three digits at least, and no more decimals than mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def _spread(ratio: Middle) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f}-{ratio.greatest:.2f})"


def unmet(lines: Sequence[Line]) -> list[Line]:
    """The lines whose target was not met."""
    return [line for line in lines if line.met is False]
