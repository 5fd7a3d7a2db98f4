"""One event loop's way to a single Redis server: a reader, and writers that overlap.

A key always takes the same writer, so that its changes keep their order.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from typing import Final

from learning_observer.kvs.changes import Change, Outcome
from learning_observer.kvs.durability import Durability
from learning_observer.kvs.grouping import Grouping
from learning_observer.kvs.key_layout import single_pattern
from learning_observer.kvs.own_loop import OwnLoop
from learning_observer.kvs.patience import RetryBudget
from learning_observer.kvs.primitives import Submit
from learning_observer.kvs.reader import Reader
from learning_observer.kvs.scanning import scan_strings
from learning_observer.kvs.writer import Writer
from learning_observer.redis_connection import RedisConnection, RedisSettings

#: Keys are dealt to the lanes in so many parts, by hash, each when its first key comes.
PARTS: Final = 1024


class ServerTraffic(OwnLoop):
    """One event loop's way to a single server: a reader, and writers that overlap."""

    def __init__(
        self,
        where: RedisSettings,
        *,
        prefix: str,
        ttl_ms: int,
        durability: Durability,
        grouping: Grouping,
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
    def in_vain(self) -> int:
        """How many attempts have been in vain."""
        return self.connection.in_vain

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        self.way(change.guard)(change, done, deadline)

    def way(self, guard: str) -> Submit:
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
