"""The seed of a run, and what its tests report for the table at the end."""

from __future__ import annotations

import pytest
from tests.faults.summary import SEED_VARIABLE, TALLY, seed_of
from tests.faults.tally import Tally
from tests.faults.workers import tell


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
    found: Tally = request.node.stash.setdefault(TALLY, Tally())
    return found
