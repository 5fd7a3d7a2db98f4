"""One event loop's way to a single Redis server: a reader, and writers that overlap.

A writer's calls are numbered: `lua/commit.lua` keeps its id and the number in a record beside
the data, and a call that finds its own number there gets the first answer again. For that a
writer has one call in flight, sends it again under the same number, and counts up only after
a definite answer or after giving up.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence

from learning_observer.kvs import scripts
from learning_observer.kvs.changes import RESERVED_PREFIX, Change, Conflict, Outcome
from learning_observer.kvs.durability import NO_WAITING, Durability
from learning_observer.kvs.errors import KVSError, NotReplicated, OutcomeUnknown, WrongType
from learning_observer.kvs.grouping import CHANGES, Grouping
from learning_observer.kvs.key_layout import single_pattern
from learning_observer.kvs.lane import Lane
from learning_observer.kvs.own_loop import OwnLoop
from learning_observer.kvs.store import GROUP_KEYS_MAX, Submit
from learning_observer.kvs.waiting import Queue, Waiting
from learning_observer.kvs.wire import RECORD_TTL_MIN_MS, Found, Wire, scan_strings
from learning_observer.redis_connection import RedisConnection, RedisSettings

logger = logging.getLogger(__name__)


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
        entity = guard.rpartition(",")[2]
        return self._writers[hash(entity) % len(self._writers)].submit

    def close(self, why: str) -> None:
        """Take no changes more; what was handed in goes on."""
        for writer in self._writers:
            writer.close(why)

    def names(self, key_prefix: str) -> AsyncGenerator[bytes, None]:
        """Names of the keys that begin with `key_prefix`, some of them more than once."""
        return scan_strings(self.connection, single_pattern(self._prefix, key_prefix))

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
        self, waiting: Queue[str, Found]
    ) -> tuple[Sequence[Waiting[str, Found]], Sequence[Found]]:
        group: Sequence[Waiting[str, Found]]
        if waiting.timed:
            group, deadline = self._wire.take(waiting, GROUP_KEYS_MAX)
        else:
            group = [waiting.popleft() for _ in range(min(len(waiting), GROUP_KEYS_MAX))]
            deadline = None
        names = [(self._prefix + each[0]).encode() for each in group]
        try:
            found = await self._wire.run(
                lambda connection: scripts.read(connection, names),
                deadline=deadline,
                writes=False,
                waiting=waiting,
            )
        except KVSError as error:
            group = [*group, *self._wire.too_late(waiting)]
            return group, [error] * len(group)
        except Exception as error:
            logger.exception("reading failed")
            return group, [KVSError(f"reading failed: {error!r}")] * len(group)
        return group, [
            WrongType(each[0]) if isinstance(data, int) else data
            for each, data in zip(group, found, strict=True)
        ]


class Writer:
    """Makes changes in groups, each at most once, under an id that no process used before.

    durability   what a call that made anything waits for; by default nothing
    changes_max  changes of one call
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        prefix: str,
        ttl_ms: int,
        durability: Durability = NO_WAITING,
        changes_max: int = CHANGES,
    ) -> None:
        self._durability = durability if durability.waits else None
        if self._durability is None:
            self._wire = Wire(connection)
        else:
            self._wire = Wire(connection, greet=durability.check, extra_s=durability.extra_s)
        self._changes_max = changes_max
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
        self, waiting: Queue[Change, Outcome]
    ) -> tuple[Sequence[Waiting[Change, Outcome]], Sequence[Outcome]]:
        self._number += 1
        group: list[Waiting[Change, Outcome]] = []
        short: NotReplicated | None = None
        source: deque[Waiting[Change, Outcome]] = waiting
        deadline = None
        if waiting.timed:
            source, deadline = self._wire.take(waiting, self._changes_max)
        try:
            try:
                call = scripts.packed_call(
                    source,
                    group,
                    prefix=self._prefix,
                    record=self._record,
                    number=self._number,
                    record_ttl_ms=self._record_ttl_ms,
                    ttl_ms=self._ttl_ms,
                    changes_max=self._changes_max,
                )
            finally:
                if source is not waiting:
                    waiting.put_back(source)
            if self._durability is None:
                outcomes, details = await self._wire.run(
                    lambda connection: scripts.commit(connection, call),
                    deadline=deadline,
                    waiting=waiting,
                )
            else:
                commit = functools.partial(self._durability.commit, call=call)
                outcomes, details, short = await self._wire.run(
                    commit, deadline=deadline, waiting=waiting
                )
        except KVSError as error:
            late = self._wire.too_late(waiting)
            unsent = self._wire.gave_up or error
            return [*group, *late], [error] * len(group) + [unsent] * len(late)
        except Exception as error:
            logger.exception("a commit failed")
            unknown = OutcomeUnknown(f"a commit failed: {error!r}")
            return group, [unknown] * len(group)
        if not outcomes.strip("c"):
            return group, [short] * len(group)
        if details is None:
            try:
                details = await self._read_afresh(group, outcomes, waiting)
            except KVSError as error:  # what was made was made, all the same
                return group, [short if letter == "c" else error for letter in outcomes]
        detail = iter(details)
        return group, [
            short if letter == "c" else self._not_made(letter, next(detail)) for letter in outcomes
        ]

    def _not_made(self, letter: str, detail: bytes | None) -> Outcome:
        if letter == "n":
            return Conflict(detail)
        return WrongType((detail or b"").removeprefix(self._prefix).decode())

    async def _read_afresh(
        self,
        group: Sequence[Waiting[Change, Outcome]],
        outcomes: str,
        waiting: Queue[Change, Outcome],
    ) -> list[bytes | None]:
        """The details of what was not made, as far as they can be told afterwards."""
        lacking = [
            (letter, self._prefix + each[0].guard.encode())
            for letter, each in zip(outcomes, group, strict=True)
            if letter != "c"
        ]
        names = [name for _, name in lacking]
        if not names:
            return []
        found = await self._wire.run(
            lambda connection: scripts.read(connection, names),
            deadline=self._wire.deadline,
            writes=False,
            waiting=waiting,
        )
        # A guard that has become something else by now is told by the retry that follows.
        return [
            name if letter == "t" else data if isinstance(data, bytes) else None
            for (letter, name), data in zip(lacking, found, strict=True)
        ]
