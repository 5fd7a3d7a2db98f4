"""The table of faults: what each test of this folder broke, how often, what held; the seed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Final

#: Every fault that is tried here, by its number.
FAULTS: Final = {
    "T1": "connections cut, replies lost, six processes",
    "T2": "the n-th socket call fails, for every n",
    "T3": "workers killed at work",
    "T4": "Redis killed and restarted under clients",
    "T5": "append-only file cut at many offsets",
    "T6": "scripts flushed all the while",
    "T7": "clients killed, reset, black-holed, dripped, half-closed",
    "T8": "cancelled at every await",
    "T9": "replica promoted, read-only, partitioned primary",
    "T10": "Sentinel failover under load",
    "T11": "cluster slots that move under load",
    "T12": "out of memory, eviction policies",
    "T13": "a foreign script blocks the server",
    "T14": "server loading its data",
    "T15": "expiry between read and commit",
    "T16": "rights withheld by ACL",
    "T17": "random operations against a model",
    "T18": "recorded histories, linearizable",
    "T19": "keys of every kind",
    "T20": "codec against json",
    "T21": "filesystem: kills, full disk, bad disk",
}


def seed_from(named: str | None) -> int:
    """The seed that somebody named, or a new one. Raises ValueError for what is no number."""
    if not named:
        return random.SystemRandom().randrange(1 << 32)
    if not named.isdecimal():
        raise ValueError(f"expected a whole number, got {named!r}")
    return int(named)


class Tally:
    """Collects what the tests of one run report."""

    def __init__(self) -> None:
        self._tried: Counter[tuple[str, str]] = Counter()

    def __call__(self, fault: str, tried: int, held: str) -> None:
        """`fault` (T1 to T21) was tried so many times, and `held` says what held, or how much.

        Reports with the same words make one line, which counts them together.
        """
        if fault not in FAULTS:
            raise KeyError(f"{fault} is no fault of the table: {', '.join(FAULTS)}")
        if tried < 1:
            raise ValueError(f"{fault}: tried {tried} times, so nothing was shown")
        self._tried[fault, held] += tried

    def counts(self) -> list[tuple[str, int, str]]:
        """What was reported: fault, tried, held. Another Tally can be called with each of them."""
        return [(fault, tried, held) for (fault, held), tried in self._tried.items()]

    def lines(self) -> list[str]:
        """The table, in the order of the faults; those that nobody reported are left out."""
        return [
            f"{fault:<4} {what:<58} {tried:>8,}  {held}"
            for fault, what in FAULTS.items()
            for (reported, held), tried in self._tried.items()
            if reported == fault
        ]
