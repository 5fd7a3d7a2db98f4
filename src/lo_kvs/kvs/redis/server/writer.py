"""Writer: writes changes in groups, one group at a time, each at most once.

A writer numbers its calls. The server keeps the writer's id and the last number in a record next
to the data; a call that finds its own number there returns the first outcome again. So a writer
has one call in flight, retries it with the same number, and increments the number only after a
definite answer or after giving up.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from lo_kvs.kvs.batching.queue import Pending
from lo_kvs.kvs.changes import RESERVED_PREFIX, Change, Outcome
from lo_kvs.kvs.errors import KVSError, OutcomeUnknown
from lo_kvs.kvs.redis.batch_limits import CHANGES
from lo_kvs.kvs.redis.durability import NO_WAITING, Durability
from lo_kvs.kvs.redis.protocol import read_values
from lo_kvs.kvs.redis.protocol.commit_script import RECORD_TTL_MIN_MS, WriterSettings
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction
from lo_kvs.kvs.redis.protocol.commits import Calls, outcomes_of_changes
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, RawConnection, converse
from lo_kvs.kvs.redis.server.connection import Connection
from lo_kvs.kvs.redis.server.dispatcher import Call, Dispatcher
from lo_kvs.redis_connection import RedisConnection

#: Send the first changes of a burst once this many are queued: bursts of 500 then took 5.2 us per
#: event instead of 6.1. With 64 or 250 the gain was smaller.
ENOUGH: Final = 128


class Writer(Dispatcher[Change, Outcome, Outcomes]):
    """Makes changes in groups, each at most once, with a unique writer id.

    durability   what a call that wrote something waits for; default: nothing
    changes_max  maximum number of changes in one call
    """

    writes = True

    def __init__(
        self,
        connection: RedisConnection,
        *,
        prefix: str,
        ttl_ms: int,
        durability: Durability = NO_WAITING,
        changes_max: int = CHANGES,
    ) -> None:
        if durability.waits:
            conn = Connection(connection, greet=durability.check, extra_s=durability.extra_s)
        else:
            conn = Connection(connection)
        super().__init__(conn, most=changes_max, enough=ENOUGH, short=not durability.waits)
        self._durability = durability
        self._prefix = prefix
        record_ttl_ms = max(RECORD_TTL_MIN_MS, round(connection.settings.retry_for * 10_000))
        record = f"{RESERVED_PREFIX}writer:{uuid.uuid4().hex}".encode()
        self._calls = Calls(
            WriterSettings(record, prefix.encode(), ttl_ms, record_ttl_ms, changes_max)
        )

    def next_call(
        self, source: deque[Pending[Change, Outcome]], group: list[Any]
    ) -> Call[Outcomes]:
        return self._calls.next(source, group)

    def answers(
        self, call: Call[Outcomes], result: Outcomes, shortfall: KVSError | None = None
    ) -> Sequence[Outcome] | None:
        return self._calls.outcomes(call, result, shortfall, self._key_of)

    def is_unchecked(self, call: Call[Outcomes]) -> bool:
        return self._calls.is_unchecked(call)

    async def check(self, connection: RawConnection, call: Call[Outcomes]) -> None:
        await self._calls.check(connection, self._connection.settings.place, call)

    def take_apart(self, call: Call[Outcomes]) -> None:
        if isinstance(call, Transaction):
            self._waiting.extendleft(reversed(call.taken_apart()))

    async def confirm(self, connection: RawConnection, result: Outcomes) -> KVSError | None:
        if not self._durability.waits or "c" not in result[0]:
            return None
        return await self._durability.confirm(connection)

    async def answers_from_server(
        self, call: Call[Outcomes], result: Outcomes, shortfall: KVSError | None
    ) -> Sequence[Outcome]:
        """The outcomes of a call that had been made before: read the current values."""
        letters, _ = result
        lacking = self._calls.lacking(call, letters)
        values = read_values.Values([name for _, name in lacking])
        try:
            found = await self._connection.run(
                lambda connection: converse(connection, values.rounds()),
                deadline=self._connection.deadline,
                writes=False,
                waiting=self._waiting,
            )
        except KVSError as error:  # changes with letter "c" were made nevertheless
            return [shortfall if letter == "c" else error for letter in letters]
        # If a guard has another type by now, the caller's next attempt reports that.
        details: list[Any] = [
            name if letters[at] == "t" else data if isinstance(data, bytes) else None
            for (at, name), data in zip(lacking, found, strict=True)
        ]
        return outcomes_of_changes(letters, details, shortfall, self._key_of)

    def broken(self, error: Exception) -> KVSError:
        return OutcomeUnknown(f"a commit failed: {error!r}")

    def _key_of(self, name: bytes) -> str:
        return name.decode("utf-8", "backslashreplace").removeprefix(self._prefix)
