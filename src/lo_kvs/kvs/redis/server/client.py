"""ServerClient: one event loop's client for a single Redis server: a reader and several writers.

A key always uses the same writer, so that its changes keep their order.
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

#: Keys are hashed into this many buckets; each bucket gets a writer when its first key is used.
BUCKETS: Final = 1024


class ServerClient(LoopBound):
    """One event loop's client for a single server: a reader, and writers that work in parallel."""

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
        #: How long a change is retried, in seconds.
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
        self._submitters: list[Submit | None] = [None] * BUCKETS

    @property
    def failed_attempts(self) -> int:
        """The number of failed attempts so far."""
        return self.connection.failed_attempts

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        self.submitter_for(change.guard)(change, done, deadline)

    def submitter_for(self, guard: str) -> Submit:
        # A key always uses the same writer, so its changes stay in order. Keys with the same
        # ending, such as those of one student, share it: an event's changes leave in one group.
        bucket = hash(guard.rpartition(",")[2]) % BUCKETS
        submit = self._submitters[bucket]
        if submit is None:
            # Round-robin: by hash alone, ten students could all share one writer.
            submit = self._submitters[bucket] = next(self._turns).submit
        return submit

    def close(self, why: str) -> None:
        """Accept no more changes; submitted ones are completed."""
        for writer in self._writers:
            writer.close(why)

    def names(self, key_prefix: str, budget: RetryBudget) -> AsyncGenerator[bytes, None]:
        """The names of keys that start with `key_prefix`; some may occur more than once."""
        return scan_strings(self.connection, single_pattern(self._prefix, key_prefix), budget)

    def key_of(self, name: bytes) -> str | None:
        """The key with this name in Redis; `None` if the name belongs to another program."""
        try:
            return name.decode().removeprefix(self._prefix)
        except UnicodeDecodeError:
            return None

    async def aclose(self) -> None:
        await self.reader.aclose()
        for writer in self._writers:
            await writer.aclose()
        await self.connection.aclose()
