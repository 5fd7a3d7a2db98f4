"""The results of checking a Redis server: findings, each with a severity and a fix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How bad a finding is; the larger, the worse.

    OK       no problem
    UNKNOWN  could not be determined: the user may not see it
    WARNING  it works, but acknowledged data may be lost, or stores disturb each other
    ERROR    it does not work
    """

    OK = 0
    UNKNOWN = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True)
class Finding:
    """One result of checking a server.

    check   the subject of the check, in a word or two: `eviction`
    stores  the names of the stores that it concerns
    what    the result
    fix     what to do about it; empty if nothing needs to be done
    """

    severity: Severity
    check: str
    stores: tuple[str, ...]
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}" if self.fix else self.what


@dataclass(frozen=True)
class ServerReport:
    """All findings about one server.

    place      its address, for messages; without the password
    identity   identifies the server, whatever address it is reached by
    db         the number of the database that is used
    stores     the names of the stores that use it
    cluster    whether it is a cluster node
    ping_us    median time of a PING, in microseconds; `None` if it cannot be reached, or the
               user may not use PING
    script_us  the same for a script that does nothing
    """

    place: str
    identity: str
    db: int
    stores: tuple[str, ...]
    findings: Sequence[Finding]
    cluster: bool = False
    ping_us: float | None = None
    script_us: float | None = None

    @property
    def worst(self) -> Severity:
        """The severity of the worst finding."""
        return max((finding.severity for finding in self.findings), default=Severity.OK)

    @property
    def reached(self) -> bool:
        """Whether the server answered."""
        return not any(finding.check == REACHABLE for finding in self.bad)

    @property
    def bad(self) -> list[Finding]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding.severity == Severity.ERROR]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values. `way_out` is the old name of `fix`, kept until 1.0."""
        return {
            "place": self.place,
            "db": self.db,
            "stores": list(self.stores),
            "reached": self.reached,
            "ping_us": self.ping_us,
            "script_us": self.script_us,
            "findings": [
                {
                    "severity": finding.severity.name.lower(),
                    "check": finding.check,
                    "stores": list(finding.stores),
                    "what": finding.what,
                    "fix": finding.fix,
                    "way_out": finding.fix,
                }
                for finding in self.findings
            ],
        }


#: The check whose error means that nothing else is known about the server.
REACHABLE = "reachable"


def prefix_clashes(prefixes: Mapping[str, str]) -> list[Finding]:
    """Warnings about the stores of one database that see each other's keys.

    prefixes  the prefix of each store, by its name
    """
    found: list[Finding] = []
    fix = "give each store a `prefix` that no other store's prefix starts with"
    ordered = sorted(prefixes, key=lambda name: (len(prefixes[name]), name))
    for at, name in enumerate(ordered):
        for other in ordered[at + 1 :]:
            mine, others = prefixes[name], prefixes[other]
            if not others.startswith(mine):
                continue
            if mine == others:
                shared = f"the prefix {mine!r}" if mine else "no prefix"
                what = (
                    f"{name} and {other} use one database with {shared}: "
                    "they read, overwrite and clear each other's keys"
                )
            else:
                why = f"{others!r} starts with its prefix {mine!r}" if mine else "it has no prefix"
                what = f"{name} lists and clears the keys of {other} in the same database: {why}"
            found.append(Finding(Severity.WARNING, "prefixes", (name, other), what, fix))
    return found
