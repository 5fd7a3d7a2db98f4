"""Reads keys of a single server in groups: what many tasks ask for leaves in one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from learning_observer.kvs import reading
from learning_observer.kvs.carrier import Call, Carrier
from learning_observer.kvs.conversation import Rounds
from learning_observer.kvs.errors import KVSError, WrongType
from learning_observer.kvs.primitives import GROUP_KEYS_MAX
from learning_observer.kvs.waiting import Waiting
from learning_observer.kvs.wire import Found, Wire
from learning_observer.redis_connection import RedisConnection


class Reading(NamedTuple):
    """Keys that are read together, and the names that they have in Redis."""

    group: list[Waiting[str, Found]]
    values: reading.Values

    def rounds(self) -> Rounds[reading.Contents]:
        """The conversation."""
        return self.values.rounds()


class Reader(Carrier[str, Found, reading.Contents]):
    """Reads keys: the answer is the bytes, `None` where the key is absent, or what befell it."""

    writes = False

    def __init__(self, connection: RedisConnection, *, prefix: str) -> None:
        super().__init__(Wire(connection), most=GROUP_KEYS_MAX)
        self._prefix = prefix

    def next_call(
        self, source: deque[Waiting[str, Found]], group: list[Waiting[str, Found]]
    ) -> Call[reading.Contents]:
        while source and len(group) < self._most:
            group.append(source.popleft())
        prefix = self._prefix
        return Reading(group, reading.Values([(prefix + each[0]).encode() for each in group]))

    def answers(
        self,
        call: Call[reading.Contents],
        result: reading.Contents,
        shortfall: KVSError | None = None,
    ) -> Sequence[Found]:
        return [
            WrongType(each[0]) if isinstance(data, int) else data
            for each, data in zip(call.group, result, strict=True)
        ]

    def broken(self, error: Exception) -> KVSError:
        return KVSError(f"reading failed: {error!r}")
