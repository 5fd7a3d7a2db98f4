"""How long the machine kept a test from running: time that no deadline of ours can keep.

A test of a deadline asserts `seconds < RETRY_FOR + late(GRACE)`. On a quiet machine that is the
deadline and the grace. On a busy one, this process was ready to run for some time and got no core;
the kernel counts that time, to the microsecond, and it is added. Time that our own code takes, or
sleeps, or blocks for, is not in it, so the bound proves as much as before.
"""

from __future__ import annotations

from pathlib import Path

# Of the main thread, which runs the tests: nanoseconds on a core, nanoseconds ready without one.
_COUNTS = Path("/proc/self/schedstat")
# The server or the proxy's other end is a process as well, and waits for a core no less than ours.
_SIDES = 2


class _Test:
    """The test that runs."""

    began_s = 0.0


def _waited_for_a_core_s() -> float:
    try:
        return int(_COUNTS.read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0  # no Linux: then the grace is all there is


def test_begins() -> None:
    """Count from here; conftest.py says when."""
    _Test.began_s = _waited_for_a_core_s()


def late(grace_s: float) -> float:
    """The grace, and what the machine took from this test so far."""
    return grace_s + _SIDES * (_waited_for_a_core_s() - _Test.began_s)
