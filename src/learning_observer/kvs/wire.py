"""The way to Redis: one connection, tried until a deadline, and who speaks on it.

redis-py's own retries are not used: it sends a command again after a time-out, and a commit
that is sent again meets its own write. Here a commit carries its writer's id and a number,
`lua/commit.lua` keeps both in a record beside the data, and a call that finds its own number
there gets the first answer again. For that a writer has one call in flight, sends it again
under the same number, and counts up only after a definite answer or after giving up.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeAlias, TypeVar

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from learning_observer.kvs import scripts
from learning_observer.kvs.changes import RESERVED_PREFIX, Change, Conflict, Outcome
from learning_observer.kvs.errors import KVSError, OutcomeUnknown, Refused, Unavailable, WrongType
from learning_observer.kvs.lane import Lane, Waiting
from learning_observer.kvs.store import GROUP_KEYS_MAX
from learning_observer.redis_connection import RedisConnection

logger = logging.getLogger(__name__)

T = TypeVar("T")
#: What reading a key comes to: its bytes, `None` where it is absent, or what went wrong.
Found: TypeAlias = bytes | KVSError | None

#: Answers that say "not now": nothing was done, and waiting may help. For some of them
#: redis-py has a class and cuts the code off the text; the others keep it.
NOT_NOW: Final = (
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    TryAgainError,
)
NOT_NOW_CODES: Final = frozenset(["BUSY", "NOREPLICAS"])
#: An attempt with less time than this is not begun: cut off, it would leave things unknown.
ATTEMPT_MIN_S: Final = 0.05
#: A record outlives every attempt to send its call, and bytes that a dropped connection may
#: still bring to the server after the last of them.
RECORD_TTL_MIN_MS: Final = 600_000
PAUSE_MIN_S: Final = 0.01
PAUSE_MAX_S: Final = 0.5


def _words_of(error: RedisError) -> str:
    """What the server said, beginning with its code, which redis-py cuts off some texts."""
    words, code = str(error), error.status_code
    return words if not code or words.startswith(code) else f"{code} {words}"


class Wire:
    """One connection of a pool, kept, and replaced when it breaks."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._redis: AbstractConnection | None = None
        self.settings = connection.settings

    async def run(self, operation: Callable[[scripts.Connection], Awaitable[T]]) -> T:
        """Run `operation` until it has a definite answer, or the deadline has passed.

        It may run more than once. Raises `Refused` when the server said no, `Unavailable`
        when no attempt can have done anything, `OutcomeUnknown` when one may have.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.settings.retry_for
        pause = PAUSE_MIN_S
        unknown = False
        while True:
            sent = False
            try:
                limit = min(deadline, clock() + self.settings.timeout)
                async with asyncio.timeout_at(limit):
                    connection = await self._connected()
                    sent = True
                    return await operation(connection)
            except (ResponseError, AuthenticationError, BusyLoadingError) as error:
                words = _words_of(error)
                if not isinstance(error, NOT_NOW) and words.split(" ")[0] not in NOT_NOW_CODES:
                    # An attempt before this one may have been carried out all the same.
                    kind = OutcomeUnknown if unknown else Refused
                    raise kind(f"{self.settings.place} refused: {words}") from error
                why: Exception = error
            # A peer's reset can surface as AttributeError or TypeError out of redis-py
            # (redis/redis-py#4287): the connection is lost all the same.
            except (RedisError, OSError, EOFError, AttributeError, TypeError) as error:
                await self._drop()
                unknown = unknown or sent
                why = error
            except BaseException:
                await self._drop()  # a reply may be under way: nobody else must read it
                raise
            pause = min(pause * 2, PAUSE_MAX_S) * random.uniform(0.5, 1.0)
            if clock() + pause + ATTEMPT_MIN_S >= deadline:
                raise (OutcomeUnknown if unknown else Unavailable)(
                    f"{self.settings.place}: gave up after {self.settings.retry_for:g} s, "
                    f"the last fault was {type(why).__name__}: {why}"
                ) from why
            await asyncio.sleep(pause)

    async def ask(self, question: Callable[[scripts.Connection], Awaitable[T]]) -> T:
        """Run what changes nothing: without an answer it is `Unavailable`, never unknown."""
        try:
            return await self.run(question)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error

    async def aclose(self) -> None:
        """Give the connection back to its pool."""
        if self._redis is not None:
            redis, self._redis = self._redis, None
            await self._connection.client().connection_pool.release(redis)

    async def _connected(self) -> AbstractConnection:
        if self._redis is None:
            pool = self._connection.client().connection_pool
            self._redis = await pool.get_connection()  # type: ignore[no-untyped-call]
            self._redis.socket_timeout = None  # the deadline here is ours
        elif not self._redis.is_connected:
            await self._redis.connect()  # type: ignore[no-untyped-call]
        return self._redis

    async def _drop(self) -> None:
        if self._redis is not None:
            await self._redis.disconnect(nowait=True)


async def scan_strings(connection: RedisConnection, pattern: str) -> AsyncIterator[bytes]:
    """Every key that matches `pattern` and holds a string, some of them more than once.

    By SCAN, which blocks nobody, on a connection of its own. Raises `Unavailable`.
    """
    wire = Wire(connection)
    cursor = b"0"
    try:
        while True:
            step = functools.partial(scripts.scan, cursor=cursor, pattern=pattern)
            cursor, names = await wire.ask(step)
            for name in names:
                yield name
            if cursor == b"0":
                return
    finally:
        await wire.aclose()


class Reader:
    """Reads keys in groups: what many tasks ask for leaves in one call."""

    def __init__(self, connection: RedisConnection, *, prefix: str) -> None:
        self._wire = Wire(connection)
        self._prefix = prefix
        self._lane: Lane[str, Found] = Lane(self._carry)
        self.submit = self._lane.submit

    async def aclose(self) -> None:
        """Wait until everything has been answered, then give the connection back."""
        await self._lane.idle()
        await self._wire.aclose()

    async def _carry(
        self, waiting: deque[Waiting[str, Found]]
    ) -> tuple[Sequence[Waiting[str, Found]], Sequence[Found]]:
        group = [waiting.popleft() for _ in range(min(len(waiting), GROUP_KEYS_MAX))]
        names = [(self._prefix + key).encode() for key, _ in group]
        try:
            found = await self._wire.ask(lambda connection: scripts.read(connection, names))
        except KVSError as error:
            return group, [error] * len(group)
        except Exception as error:
            logger.exception("reading failed")
            return group, [KVSError(f"reading failed: {error!r}")] * len(group)
        return group, [
            WrongType(key) if isinstance(data, int) else data
            for (key, _), data in zip(group, found, strict=True)
        ]


class Writer:
    """Makes changes in groups, each at most once, under an id that no process used before."""

    def __init__(self, connection: RedisConnection, *, prefix: str, ttl_ms: int) -> None:
        self._wire = Wire(connection)
        self._prefix = prefix.encode()
        self._ttl_ms = ttl_ms
        self._record = f"{RESERVED_PREFIX}writer:{uuid.uuid4().hex}".encode()
        self._record_ttl_ms = max(RECORD_TTL_MIN_MS, round(connection.settings.retry_for * 10_000))
        self._number = 0
        self._lane: Lane[Change, Outcome] = Lane(self._carry)
        self.submit = self._lane.submit
        self.close = self._lane.close

    async def aclose(self) -> None:
        """Wait until everything has been answered, then give the connection back."""
        await self._lane.idle()
        await self._wire.aclose()

    async def _carry(
        self, waiting: deque[Waiting[Change, Outcome]]
    ) -> tuple[Sequence[Waiting[Change, Outcome]], Sequence[Outcome]]:
        self._number += 1
        group: list[Waiting[Change, Outcome]] = []
        try:
            call = scripts.packed_call(
                waiting,
                group,
                prefix=self._prefix,
                record=self._record,
                number=self._number,
                record_ttl_ms=self._record_ttl_ms,
                ttl_ms=self._ttl_ms,
            )
            outcomes, details = await self._wire.run(
                lambda connection: scripts.commit(connection, call)
            )
        except KVSError as error:
            return group, [error] * len(group)
        except Exception as error:
            logger.exception("a commit failed")
            unknown = OutcomeUnknown(f"a commit failed: {error!r}")
            return group, [unknown] * len(group)
        if not outcomes.strip("c"):
            return group, [None] * len(group)
        if details is None:
            try:
                details = await self._read_afresh(group, outcomes)
            except KVSError as error:  # what was made was made, all the same
                return group, [None if letter == "c" else error for letter in outcomes]
        detail = iter(details)
        return group, [
            None if letter == "c" else self._not_made(letter, next(detail)) for letter in outcomes
        ]

    def _not_made(self, letter: str, detail: bytes | None) -> Outcome:
        if letter == "n":
            return Conflict(detail)
        return WrongType((detail or b"").removeprefix(self._prefix).decode())

    async def _read_afresh(
        self, group: Sequence[Waiting[Change, Outcome]], outcomes: str
    ) -> list[bytes | None]:
        """The details of what was not made, as far as they can be told afterwards."""
        lacking = [
            (letter, self._prefix + change.guard.encode())
            for letter, (change, _) in zip(outcomes, group, strict=True)
            if letter != "c"
        ]
        names = [name for _, name in lacking]
        if not names:
            return []
        found = await self._wire.ask(lambda connection: scripts.read(connection, names))
        # A guard that has become something else by now is told by the retry that follows.
        return [
            name if letter == "t" else data if isinstance(data, bytes) else None
            for (letter, name), data in zip(lacking, found, strict=True)
        ]
