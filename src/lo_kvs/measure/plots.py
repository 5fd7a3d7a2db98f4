"""Draws curves as SVG files with matplotlib: `pip install 'lo-kvs[bench]'`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

if TYPE_CHECKING:
    from lo_kvs.measure.report import Chart

HOW_TO_INSTALL: Final = "plots need matplotlib: pip install 'lo-kvs[bench]'"
WIDTH_IN: Final = 6.4
HEIGHT_IN: Final = 4.0


class NoPlots(Exception):
    """matplotlib is not installed; the message says how to install it."""


def check_there() -> None:
    """Raise `NoPlots` if plots cannot be drawn, before a long run starts."""
    if importlib.util.find_spec("matplotlib") is None:
        raise NoPlots(HOW_TO_INSTALL)


def write_each(charts: Iterable[Chart], folder: Path) -> list[Path]:
    """A file for each chart, `<folder>/<name>.svg`. Returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chart in charts:
        path = folder / f"{chart.name}.svg"
        write([chart], path)
        written.append(path)
    return written


def write(charts: Sequence[Chart], path: Path | BinaryIO) -> None:
    """All charts in one file, one below the other. Raises `NoPlots`."""
    check_there()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Fixed: the same figures give the same file, and its text can be searched.
    with mpl.rc_context({"svg.hashsalt": "lo-kvs", "svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN * len(charts)), layout="constrained")
        for axes, chart in zip(
            figure.subplots(len(charts), 1, squeeze=False)[:, 0], charts, strict=True
        ):
            _draw(axes, chart)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw(axes: Any, chart: Chart) -> None:
    for name, points in chart.series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    axes.set_title(chart.title)
    axes.set_xlabel(chart.x)
    axes.set_ylabel(chart.y)
    if chart.log_x:
        axes.set_xscale("log")
    if chart.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
