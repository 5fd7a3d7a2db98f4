"""A seed of each test's own, which it prints: what fails can be made to fail again."""

from __future__ import annotations

import os
import random

import pytest
from tests.faults.workers import tell

SEED_VARIABLE = "LOKVS_FAULT_SEED"


@pytest.fixture
def seed() -> int:
    """A new one in each run, or the one that LOKVS_FAULT_SEED names."""
    named = os.environ.get(SEED_VARIABLE)
    chosen = int(named) if named else random.SystemRandom().randrange(1 << 32)
    tell(f"{SEED_VARIABLE}={chosen}")
    return chosen
