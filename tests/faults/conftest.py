"""A seed of each test's own, which it prints, and the table of what the tests came to."""

from __future__ import annotations

import os
import random

import pytest
from tests.faults.tally import Tally
from tests.faults.workers import tell

SEED_VARIABLE = "LOKVS_FAULT_SEED"
TALLY = pytest.StashKey[Tally]()


@pytest.fixture
def seed() -> int:
    """A new one in each run, or the one that LOKVS_FAULT_SEED names."""
    named = os.environ.get(SEED_VARIABLE)
    chosen = int(named) if named else random.SystemRandom().randrange(1 << 32)
    tell(f"{SEED_VARIABLE}={chosen}")
    return chosen


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """What a test tells at its end: `tally("T4", 3, "nothing acknowledged lost")`."""
    return request.config.stash.setdefault(TALLY, Tally())


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The table, after the tests."""
    lines = config.stash.setdefault(TALLY, Tally()).lines()
    if lines:
        terminalreporter.section("faults: what was tried, how often, what held")
        for line in lines:
            terminalreporter.line(line)
