"""Reader: reads keys of a single server in groups, many tasks' keys in one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from lo_kvs.kvs.backend import GROUP_KEYS_MAX
from lo_kvs.kvs.batching.queue import Pending
from lo_kvs.kvs.errors import KVSError, WrongType
from lo_kvs.kvs.redis.protocol import read_values
from lo_kvs.kvs.redis.protocol.round_trips import Rounds
from lo_kvs.kvs.redis.server.connection import Connection, Lookup
from lo_kvs.kvs.redis.server.dispatcher import Call, Dispatcher
from lo_kvs.redis_connection import RedisConnection


class Reading(NamedTuple):
    """Keys that are read in one call, and their names in Redis."""

    group: list[Pending[str, Lookup]]
    values: read_values.Values

    def rounds(self) -> Rounds[read_values.Contents]:
        """The round trips."""
        return self.values.rounds()


class Reader(Dispatcher[str, Lookup, read_values.Contents]):
    """Reads keys: the answer is the bytes, `None` if the key is absent, or an error."""

    writes = False

    def __init__(self, connection: RedisConnection, *, prefix: str) -> None:
        super().__init__(Connection(connection), most=GROUP_KEYS_MAX)
        self._prefix = prefix

    def next_call(
        self, source: deque[Pending[str, Lookup]], group: list[Pending[str, Lookup]]
    ) -> Call[read_values.Contents]:
        while source and len(group) < self._most:
            group.append(source.popleft())
        prefix = self._prefix
        return Reading(group, read_values.Values([(prefix + each[0]).encode() for each in group]))

    def answers(
        self,
        call: Call[read_values.Contents],
        result: read_values.Contents,
        shortfall: KVSError | None = None,
    ) -> Sequence[Lookup]:
        return [
            WrongType(each[0]) if isinstance(data, int) else data
            for each, data in zip(call.group, result, strict=True)
        ]

    def broken(self, error: Exception) -> KVSError:
        return KVSError(f"reading failed: {error!r}")
