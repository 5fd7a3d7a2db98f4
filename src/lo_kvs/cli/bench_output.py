"""The output of `lo-kvs bench`: a table, a JSON file and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lo_kvs.cli.common import say

if TYPE_CHECKING:
    from lo_kvs.kvs import Store
    from lo_kvs.measure.deployment import Figures


def show(figures: Sequence[Figures], reducers: str) -> None:
    """Print the table to standard output."""
    from rich.console import Console
    from rich.table import Table

    from lo_kvs.measure.report import shown

    table = Table(title=f"{reducers} on each store", title_justify="left")
    for name in ("store", "sessions", "events/s", "p50, us", "p99, us", "bytes/event"):
        table.add_column(name, justify="left" if name == "store" else "right")
    table.add_column("of no store", justify="right")
    for found in figures:
        table.add_row(
            found.store,
            f"{found.sessions:,}" if found.sessions else "batches",
            shown(found.events_s.median),
            *("" if x is None else shown(x.median) for x in (found.p50_us, found.p99_us)),
            "" if found.event_bytes is None else shown(found.event_bytes),
            f"{found.of_no_store.median:.1%}",
        )
    Console(highlight=False).print(table)


def write_json(path: Path, figures: Sequence[Figures], stores: Mapping[str, Store]) -> None:
    """Write the results with the machine and the versions."""
    from lo_kvs.measure import machine
    from lo_kvs.output_files import replaced

    found = {
        "machine": machine.machine(),
        "versions": machine.versions(),
        "load": machine.load(),
        "stores": {name: type(store).__name__ for name, store in stores.items()},
        "figures": [each.as_json() for each in figures],
    }
    with replaced(path) as out:
        out.write(json.dumps(found, indent=1).encode() + b"\n")
    say(f"wrote {path}")


def draw(path: Path, figures: Sequence[Figures]) -> None:
    """Draw throughput and latency over the number of sessions, as SVG."""
    from lo_kvs.measure import plots
    from lo_kvs.measure.report import Chart
    from lo_kvs.output_files import replaced

    throughput: dict[str, list[tuple[float, float]]] = {}
    latency: dict[str, list[tuple[float, float]]] = {}
    for found in figures:
        if found.p50_us is not None and found.p99_us is not None:
            throughput.setdefault(found.store, []).append((found.sessions, found.events_s.median))
            for name, at in (("p50", found.p50_us), ("p99", found.p99_us)):
                latency.setdefault(f"{found.store}, {name}", []).append((found.sessions, at.median))
    charts = [
        Chart("throughput", "Throughput", "sessions", "events/s", throughput),
        Chart("latency", "Latency of an event", "sessions", "us", latency),
    ]
    with replaced(path) as out:
        plots.write(charts, out)
    say(f"wrote {path}")
