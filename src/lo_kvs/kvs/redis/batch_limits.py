"""BatchLimits: how a store on Redis groups its commits, and how many commits overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lo_kvs.kvs.errors import KVSError
from lo_kvs.redis_connection import RedisSettings

#: The number of lanes: commits that overlap, each with its own connection and writer.
LANES: Final = 2
LANES_MAX: Final = 64
#: The size of a call is limited, so that one script never blocks the server for long.
CHANGES: Final = 500
#: Lua can unpack about 8,000 values of a table at once; a change has a guard and a detail.
CHANGES_MAX: Final = 4_000


@dataclass(frozen=True)
class BatchLimits:
    """The size of groups, and the number of lanes.

    lanes    how many commits of one event loop to a single server overlap; a cluster always
             has one lane per node
    changes  maximum number of changes in one call of `lua/commit.lua`
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
        """Raise `KVSError` if the pool has too few connections for the lanes."""
        least = self.lanes + 2  # one reads, one lists keys
        if not connection.cluster and connection.pool_size < least:
            raise KVSError(
                f"{self.lanes} `lanes` need a `redis_pool_size` of {least} or more, "
                f"got {connection.pool_size}"
            )


USUAL: Final = BatchLimits()
