"""`make bench`: every row of the targets, with its baselines, in one run.

    python -m benchmarks                     all rows: some minutes
    python -m benchmarks --quick             checks that it works; its figures are not valid
    python -m benchmarks --only P2,P5 --json figures.json --plots plots
    python -m benchmarks --only C2,C3,C5     what a cluster of three nodes costs

It uses its own server on the same two cores as the client. Contestants are interleaved; a ratio
is the median of the rounds' ratios, with minimum and maximum. Exit code 1: a row found events
that were lost or applied twice, or, with --strict, a target was not met.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.rows_cluster import c2, c3, c5
from benchmarks.rows_codec import p7
from benchmarks.rows_contended import p5
from benchmarks.rows_keys import p6
from benchmarks.rows_logs import p4, p8
from benchmarks.rows_replay import p3
from benchmarks.rows_sessions import p1, p2
from benchmarks.setting import Setting, logs_folder
from lo_kvs.measure import machine, plots
from lo_kvs.measure.report import Line, Result, table, unmet
from lo_kvs.measure.timing import Miscount

ROWS: Final[dict[str, Callable[[Setting], Awaitable[Result]]]] = {
    "P1": p1,
    "P2": p2,
    "P3": p3,
    "P4": p4,
    "P5": p5,
    "P6": p6,
    "P7": p7,
    "P8": p8,
    "C2": c2,
    "C3": c3,
    "C5": c5,
}
CORES: Final = 2


def main(arguments: list[str] | None = None) -> int:
    """Run the rows that were asked for. Returns the exit code."""
    options = _options(arguments)
    if options.plots is not None:
        plots.check_there()
    machine.stay_on_cores(CORES)
    with asyncio.Runner(loop_factory=_loop_factory(uvloop=options.uvloop)) as runner:
        record = runner.run(measure(options.only, options.setting, uvloop=options.uvloop))
    charts = [chart for result in record.results.values() for chart in result.charts]
    if options.json is not None:
        options.json.write_text(json.dumps(record.as_json(), indent=1) + "\n", encoding="utf-8")
    if options.plots is not None:
        for path in plots.write_each(charts, options.plots):
            print(f"wrote {path}")
    return record.conclude(strict=options.strict)


class Record:
    """What a run of rows found out, and where."""

    def __init__(self, head: dict[str, Any]) -> None:
        self.head = head
        self.results: dict[str, Result] = {}
        self.failures: dict[str, str] = {}

    @property
    def lines(self) -> list[Line]:
        """The lines of all rows."""
        return [line for result in self.results.values() for line in result.lines]

    def as_json(self) -> dict[str, Any]:
        """Everything, for a file."""
        return {
            **self.head,
            "lines": [line.as_json() for line in self.lines],
            "sizes": {name: result.sizes for name, result in self.results.items()},
            "charts": [vars(chart) for result in self.results.values() for chart in result.charts],
            "failures": self.failures,
        }

    def conclude(self, *, strict: bool) -> int:
        """Print the table. Returns the exit code."""
        where, versions = self.head["machine"], self.head["versions"]
        console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
        console.print(table(self.lines, "Figures of this run; compare them with each other only"))
        print(f"\n{where['processor']}, {where['cores_used']} cores used; {where['system']}")
        print(", ".join(f"{name} {found}" for name, found in versions.items() if found))
        print(f"Redis {self.head['server']['redis_version']}; {self.head['settings']}")
        for name, result in self.results.items():
            if result.sizes:
                sizes = ", ".join(f"{what} {size:,}" for what, size in result.sizes.items())
                print(f"{name}: bytes of states: {sizes}")
        print(f"load before and after: {self.head['load']} on {where['cores']} cores")
        for name, failure in self.failures.items():
            print(f"{name} FAILED: {failure}")
        if self.head["settings"]["quick"]:
            print("--quick shows that the rows work; its figures and targets say nothing")
        missed = unmet(self.lines)
        print(f"{len(missed)} targets were not met" if missed else "every target was met")
        return 1 if self.failures or (strict and missed) else 0


async def measure(only: list[str], setting: dict[str, Any], *, uvloop: bool) -> Record:
    """Run the rows `only`, in the order of the targets."""
    load = machine.load()
    async with Setting.opened(**setting) as opened:
        record = Record(
            {
                "machine": machine.machine(),
                "versions": machine.versions(),
                "server": await opened.client.info(),
                "settings": {
                    "quick": opened.quick,
                    "rounds": opened.rounds,
                    "seconds": opened.seconds,
                    "event_loop": "uvloop" if uvloop else "asyncio",
                },
            }
        )
        for name in only:
            began = time.perf_counter()
            print(f"{name}: {ROWS[name].__doc__}", end="", file=sys.stderr, flush=True)
            try:
                record.results[name] = await ROWS[name](opened)
            except Miscount as miscount:
                record.failures[name] = str(miscount)
            print(f" {time.perf_counter() - began:.0f} s", file=sys.stderr)
    record.head["load"] = [load, machine.load()]
    return record


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, some seconds")
    parser.add_argument("--only", type=_rows, default=list(ROWS), metavar="P2,P5")
    parser.add_argument("--rounds", type=int, help="of each comparison")
    parser.add_argument("--seconds", type=float, help="of one round")
    parser.add_argument("--logs", metavar="DIR", help="the class logs; else LOKVS_REAL_LOGS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="SVG files; needs matplotlib")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop instead of asyncio")
    parser.add_argument("--strict", action="store_true", help="a target not met is a failure")
    options = parser.parse_args(arguments)
    options.setting = {"quick": options.quick, "logs": logs_folder(options.logs)}
    for name in ("rounds", "seconds"):
        if getattr(options, name) is not None:
            options.setting[name] = getattr(options, name)
    return options


def _rows(text: str) -> list[str]:
    wanted = {name.strip().upper() for name in text.split(",")}
    unknown = sorted(wanted - ROWS.keys())
    if unknown:
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(unknown)}")
    return [name for name in ROWS if name in wanted]


def _loop_factory(*, uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    if not uvloop:
        return asyncio.new_event_loop
    from uvloop import new_event_loop

    made: Callable[[], asyncio.AbstractEventLoop] = new_event_loop
    return made


if __name__ == "__main__":
    sys.exit(main())
