"""One event loop's way to a single Redis server: a reader, and writers that overlap.

A key always takes the same writer, so that its changes keep their order.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from typing import Final

from lo_kvs.kvs.backend import Submit
from lo_kvs.kvs.batching.deadlines import RetryBudget
from lo_kvs.kvs.changes import Change, Outcome
from lo_kvs.kvs.loop_bound import LoopBound
from lo_kvs.kvs.redis.batch_limits import BatchLimits
from lo_kvs.kvs.redis.durability import Durability
from lo_kvs.kvs.redis.key_names import single_pattern
from lo_kvs.kvs.redis.server.reader import Reader
from lo_kvs.kvs.redis.server.scan import scan_strings
from lo_kvs.kvs.redis.server.writer import Writer
from lo_kvs.redis_connection import RedisConnection, RedisSettings

#: Keys are dealt to the lanes in so many parts, by hash, each when its first key comes.
PARTS: Final = 1024


class ServerClient(LoopBound):
    """One event loop's way to a single server: a reader, and writers that overlap."""

    def __init__(
        self,
        where: RedisSettings,
        *,
        prefix: str,
        ttl_ms: int,
        durability: Durability,
        grouping: BatchLimits,
    ) -> None:
        super().__init__()
        self._prefix = prefix
        self.connection = RedisConnection(where)
        self.reader = Reader(self.connection, prefix=prefix)
        #: How long a change is tried.
        self.try_for_s = where.retry_for + durability.extra_s
        self._writers = [
            Writer(
                self.connection,
                prefix=prefix,
                ttl_ms=ttl_ms,
                durability=durability,
                changes_max=grouping.changes,
            )
            for _ in range(grouping.lanes)
        ]
        self._turns = itertools.cycle(self._writers)
        self._lanes: list[Submit | None] = [None] * PARTS

    @property
    def failed_attempts(self) -> int:
        """How many attempts have been in vain."""
        return self.connection.failed_attempts

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        self.submitter_for(change.guard)(change, done, deadline)

    def submitter_for(self, guard: str) -> Submit:
        # A key always takes the same lane: its changes stay in order. Keys that end alike,
        # as those of one student do, share it: an event's changes leave in one group.
        part = hash(guard.rpartition(",")[2]) % PARTS
        lane = self._lanes[part]
        if lane is None:
            # In turns: by hash alone ten students can all fall to one lane, and the others idle.
            lane = self._lanes[part] = next(self._turns).submit
        return lane

    def close(self, why: str) -> None:
        """Take no changes more; what was handed in goes on."""
        for writer in self._writers:
            writer.close(why)

    def names(self, key_prefix: str, budget: RetryBudget) -> AsyncGenerator[bytes, None]:
        """Names of the keys that begin with `key_prefix`, some of them more than once."""
        return scan_strings(self.connection, single_pattern(self._prefix, key_prefix), budget)

    def key_of(self, name: bytes) -> str | None:
        """The key that has this name in Redis; `None`: the name is another program's."""
        try:
            return name.decode().removeprefix(self._prefix)
        except UnicodeDecodeError:
            return None

    async def aclose(self) -> None:
        await self.reader.aclose()
        for writer in self._writers:
            await writer.aclose()
        await self.connection.aclose()
