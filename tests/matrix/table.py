"""Runs some of the tests with another interpreter or server, and counts what became of them."""

from __future__ import annotations

import subprocess
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).parents[2]


class Row(NamedTuple):
    """One line of the table. `ok` is None for what is not here: that is listed, and no failure."""

    name: str
    version: str
    result: str
    ok: bool | None


def run_tests(python: Path, tests: Sequence[str], folder: Path, env: Mapping[str, str]) -> Row:
    """Run `tests` in `folder` and show their output. The row's name and version are left empty."""
    with tempfile.TemporaryDirectory(prefix="lokvs-matrix-") as scratch:
        report = Path(scratch, "report.xml")
        command: list[str | Path] = [
            python,
            "-m",
            "pytest",
            "-q",
            "-n",
            "auto",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
        ]
        done = subprocess.run([*command, *tests], cwd=folder, env=env, check=False)
        if not report.exists():
            return Row("", "", f"pytest ended with code {done.returncode}, no test ran", ok=False)
        suite = ET.parse(report).getroot().find("testsuite")
    if suite is None:
        return Row("", "", "pytest wrote an empty report", ok=False)
    total = int(suite.get("tests", "0"))
    failed = int(suite.get("failures", "0")) + int(suite.get("errors", "0"))
    skipped = int(suite.get("skipped", "0"))
    result = f"{total - failed - skipped:,} passed"
    result += f", {failed:,} failed" if failed else ""
    result += f", {skipped:,} skipped" if skipped else ""
    result += f" in {float(suite.get('time', '0')):.0f} s"
    return Row("", "", result, ok=done.returncode == 0 and total > failed + skipped)


def show(titles: tuple[str, str, str], rows: Iterable[Row]) -> None:
    """Print the table."""
    lines = [titles, *((row.name, row.version, row.result) for row in rows)]
    wide = [max(len(line[column]) for line in lines) for column in (0, 1)]
    print()
    for name, version, result in lines:
        print(f"{name:<{wide[0]}}  {version:<{wide[1]}}  {result}".rstrip())


def exit_code(rows: Sequence[Row], what: str) -> int:
    """0 where everything that is here passed, 1 where something failed, 2 where nothing is here."""
    if not any(row.ok is not None for row in rows):
        print(f"There is no {what} here, so nothing was tested.")
        return 2
    return int(any(row.ok is False for row in rows))
