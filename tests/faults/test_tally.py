"""The table of the faults, and the seed and the time under it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.faults.tally import Tally, seed_from
from tests.faults.workers import ROOT


def test_table_is_in_the_order_of_the_faults() -> None:
    tally = Tally()
    tally("T10", 2, "a gap of 1 s")
    tally("T2", 1_000, "exact")
    tally("T10", 3, "a gap of 2 s")
    tally("T2", 234, "exact")
    lines = tally.lines()
    assert [line.split()[0] for line in lines] == ["T2", "T10", "T10"]
    assert lines[0].endswith("   1,234  exact")
    assert lines[2].endswith("       3  a gap of 2 s")


def test_untried_faults_are_not_reported() -> None:
    tally = Tally()
    with pytest.raises(ValueError, match="nothing was shown"):
        tally("T2", 0, "all well")
    with pytest.raises(KeyError, match="no fault of the table"):
        tally("T22", 1, "all well")
    assert tally.lines() == []


def test_seed_is_the_given_one_or_random() -> None:
    assert seed_from("17") == 17
    assert seed_from(None) != seed_from("")
    with pytest.raises(ValueError, match="expected a whole number, got 'seventeen'"):
        seed_from("seventeen")


def test_seed_and_time_are_reported() -> None:
    test = f"{__file__}::{test_table_is_in_the_order_of_the_faults.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", test],
        cwd=ROOT,
        env=os.environ | {"LOKVS_FAULT_SEED": "17"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert "1 tests in 0 s; the same faults again: LOKVS_FAULT_SEED=17 make faults" in done.stdout
