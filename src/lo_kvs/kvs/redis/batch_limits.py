"""How the changes of a store on Redis leave in groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lo_kvs.kvs.errors import KVSError
from lo_kvs.redis_connection import RedisSettings

#: Commits overlap in this many lanes, each a connection and a writer of its own.
LANES: Final = 2
LANES_MAX: Final = 64
#: A call is bounded, so that one script never holds the server up for long.
CHANGES: Final = 500
#: Lua takes some 8,000 values from a table at once; a change has a guard and a detail.
CHANGES_MAX: Final = 4_000


@dataclass(frozen=True)
class BatchLimits:
    """How many changes leave together, and in how many lanes.

    lanes    commits of one event loop to a single server that overlap; to each node of a
             cluster there is one lane, whatever is said here
    changes  of one call of `lua/commit.lua`, at most
    """

    lanes: int = LANES
    changes: int = CHANGES

    def __post_init__(self) -> None:
        for name, value, most in (
            ("lanes", self.lanes, LANES_MAX),
            ("group_changes", self.changes, CHANGES_MAX),
        ):
            if not 1 <= value <= most:
                raise KVSError(f"`{name}` must be 1 to {most:,}, got {value}")

    def check_pool(self, connection: RedisSettings) -> None:
        """`KVSError` where the pool has too few connections for the lanes."""
        least = self.lanes + 2  # one reads, one lists keys
        if not connection.cluster and connection.pool_size < least:
            raise KVSError(
                f"{self.lanes} `lanes` need a `redis_pool_size` of {least} or more, "
                f"got {connection.pool_size}"
            )


USUAL: Final = BatchLimits()
