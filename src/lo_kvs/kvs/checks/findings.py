"""What a look at a Redis server comes to: findings, each with its severity and a way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """How bad a finding is; the larger, the worse.

    OK       as it should be
    UNKNOWN  could not be determined: the server does not let this user see it
    WARNING  it works, and what was acknowledged may be lost, or stores disturb each other
    ERROR    it does not work
    """

    OK = 0
    UNKNOWN = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was found out about a server.

    check    what was looked at, in a word or two: `eviction`
    stores   the names of the stores that it matters to
    what     what is the case
    way_out  what to do about it; empty where nothing need be done
    """

    severity: Severity
    check: str
    stores: tuple[str, ...]
    what: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.way_out}" if self.way_out else self.what


@dataclass(frozen=True)
class ServerReport:
    """Everything that was found out about one server.

    place      its address, for people; no password
    identity   what tells it from other servers, whatever address it goes by
    db         the number of the database that is used there
    stores     the names of the stores that use it
    cluster    whether it is a node of a cluster
    ping_us    median time of a PING, in microseconds; `None`: it could not be reached, or
               the user has no right to it
    script_us  the same of a script that does nothing
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
        """Whether the server answered at all."""
        return not any(finding.check == REACHABLE for finding in self.bad)

    @property
    def bad(self) -> list[Finding]:
        """The findings that are errors."""
        return [finding for finding in self.findings if finding.severity == Severity.ERROR]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
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
                    "way_out": finding.way_out,
                }
                for finding in self.findings
            ],
        }


#: The check whose error means that nothing else is known of the server.
REACHABLE = "reachable"


def prefix_clashes(prefixes: Mapping[str, str]) -> list[Finding]:
    """The stores of one database, by name with their prefixes, that see each other's keys."""
    found: list[Finding] = []
    way_out = "give each store a `prefix` that no other store's prefix begins with"
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
                has = f"its prefix {mine!r} begins" if mine else "it has no prefix, which begins"
                what = (
                    f"{name} lists and clears the keys of {other} in the same database: "
                    f"{has} {others!r}"
                )
            found.append(Finding(Severity.WARNING, "prefixes", (name, other), what, way_out))
    return found
