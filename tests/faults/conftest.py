"""The seed of a run, and the table of what its tests came to."""

from __future__ import annotations

import os

import pytest
from tests.faults.tally import Tally, seed_from
from tests.faults.workers import tell

SEED_VARIABLE = "LOKVS_FAULT_SEED"
FOLDER = "tests/faults/"
SEED = pytest.StashKey[int]()
TALLY = pytest.StashKey[Tally]()


def seed_of(config: pytest.Config) -> int:
    """A new one in each run, or the one that LOKVS_FAULT_SEED names."""
    if SEED not in config.stash:
        try:
            config.stash[SEED] = seed_from(os.environ.get(SEED_VARIABLE))
        except ValueError as error:
            raise pytest.UsageError(f"{SEED_VARIABLE}: {error}") from None
    return config.stash[SEED]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis draws from the same seed, where this folder is what the run was asked for."""
    if config.getoption("--hypothesis-seed", None) is None:
        config.option.hypothesis_seed = str(seed_of(config))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The run's seed: whatever a test draws at random, it draws from this."""
    chosen = seed_of(request.config)
    tell(f"{SEED_VARIABLE}={chosen}")
    return chosen


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """What a test tells at its end: `tally("T4", 3, "nothing acknowledged lost")`."""
    return request.config.stash.setdefault(TALLY, Tally())


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
    terminalreporter.section("faults: what was tried, how often, what held")
    for line in config.stash.setdefault(TALLY, Tally()).lines():
        terminalreporter.line(line)
    tests = len({report.nodeid for report in reports})
    terminalreporter.line(
        f"{tests} tests in {sum(report.duration for report in reports):.0f} s; "
        f"the same faults again: {SEED_VARIABLE}={seed_of(config)} make faults"
    )
