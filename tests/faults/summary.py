"""The table under the tests of this folder, whichever processes they ran on.

A plugin of its own, because a run on several processes reads only the conftest.py at the top: the
processes that run the tests read the others.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest
from tests.faults.tally import Tally, seed_from
from xdist.workermanage import WorkerController

SEED_VARIABLE = "LOKVS_FAULT_SEED"
FOLDER = "tests/faults/"
SEED = pytest.StashKey[int]()
TALLY = pytest.StashKey[Tally]()
_PROPERTY = "faults"  # what a report carries: the numbers of its test


def seed_of(config: pytest.Config) -> int:
    """A new one in each run, or the one that LOKVS_FAULT_SEED names; the same in all processes."""
    if SEED not in config.stash:
        told: dict[str, Any] = getattr(config, "workerinput", {})
        try:
            config.stash[SEED] = seed_from(told.get(SEED_VARIABLE) or os.environ.get(SEED_VARIABLE))
        except ValueError as error:
            raise pytest.UsageError(f"{SEED_VARIABLE}: {error}") from None
    return config.stash[SEED]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    node.workerinput[SEED_VARIABLE] = str(seed_of(node.config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call" and TALLY in item.stash:
        report.user_properties.append((_PROPERTY, item.stash[TALLY].counts()))
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The table, after the tests, with the seed that repeats them and the time they took."""
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.nodeid.startswith(FOLDER)
    ]
    if not reports:
        return
    tally = Tally()
    for report in reports:
        for name, counts in report.user_properties:
            if name == _PROPERTY and report.when == "call" and isinstance(counts, list):
                for fault, tried, held in counts:
                    tally(fault, tried, held)
    terminalreporter.section("faults: what was tried, how often, what held")
    for line in tally.lines():
        terminalreporter.line(line)
    tests = len({report.nodeid for report in reports})
    terminalreporter.line(
        f"{tests} tests in {sum(report.duration for report in reports):.0f} s; "
        f"the same faults again: {SEED_VARIABLE}={seed_of(config)} make faults"
    )
