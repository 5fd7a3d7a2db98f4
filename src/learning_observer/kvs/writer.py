"""A writer: changes leave in groups, one group at a time, and each is made at most once.

A writer's calls are numbered: `lua/commit.lua` keeps its id and the number in a record beside
the data, and a call that finds its own number there gets the first answer again. For that a
writer has one call in flight, sends it again under the same number, and counts up only after
a definite answer or after giving up.

While all is well a call is sent when the one before it is answered, from where its answer was
read. What is not answered as it should be is carried by a task, under the same number, until
it is, or its deadline has passed; and whatever waits meanwhile with it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from learning_observer.kvs import reading
from learning_observer.kvs.calls import AnyCall, Calls, told
from learning_observer.kvs.changes import RESERVED_PREFIX, Change, Outcome
from learning_observer.kvs.conversation import (
    Connection,
    Outcomes,
    ProtocolMismatch,
    Rounds,
    converse,
)
from learning_observer.kvs.durability import NO_WAITING, Durability
from learning_observer.kvs.errors import KVSError, NotReplicated, OutcomeUnknown
from learning_observer.kvs.exchange import Lost
from learning_observer.kvs.grouping import CHANGES
from learning_observer.kvs.intake import Intake, deliver
from learning_observer.kvs.scripts import RECORD_TTL_MIN_MS, WriterSettings
from learning_observer.kvs.waiting import Queue, Waiting
from learning_observer.kvs.wire import Wire
from learning_observer.redis_connection import RedisConnection

logger = logging.getLogger(__name__)

#: So many changes of a burst leave at once, before the rest of it has been handed in: bursts of
#: 500 took 5.2 us an event instead of 6.1, with 64 and 250 as little gained or less.
ENOUGH: Final = 128


class Writer:
    """Makes changes in groups, each at most once, under an id that no process used before.

    durability   what a call that made anything waits for; by default nothing
    changes_max  changes of one call

    submit, close  as of `Intake`: a change, and its outcome
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
        record_ttl_ms = max(RECORD_TTL_MIN_MS, round(connection.settings.retry_for * 10_000))
        record = f"{RESERVED_PREFIX}writer:{uuid.uuid4().hex}".encode()
        writer = WriterSettings(record, prefix.encode(), ttl_ms, record_ttl_ms, changes_max)
        self._calls = Calls(writer)
        self._changes_max = changes_max
        self._prefix = prefix
        self._loop = asyncio.get_running_loop()
        self._intake = Intake(self._begin, ENOUGH, self._hurry)
        self._beginning: asyncio.Handle | None = None  # until the first of a burst leaves
        self._waiting: Queue[Change, Outcome] = self._intake.waiting
        self.submit, self.close = self._intake.submit, self._intake.close
        self._sent: tuple[AnyCall, Rounds] | None = None
        self._task: asyncio.Task[None] | None = None  # that carries, where that needs a task
        self._idle: asyncio.Future[None] | None = None

    async def aclose(self) -> None:
        """Wait until everything has been answered, then give the connection back."""
        if self._intake.busy:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.wait([self._idle])
        await self._wire.aclose()

    def _begin(self) -> None:
        if self._wire.is_open():
            # What else is handed in until then goes along.
            self._beginning = self._loop.call_soon(self._go_on)
        else:
            self._task = self._loop.create_task(self._carry_all())

    def _hurry(self) -> None:
        """A part of a burst leaves: the server works on it while the rest is handed in."""
        if self._beginning is not None:
            self._beginning.cancel()
            self._go_on()

    def _go_on(self) -> None:
        """Have what waits leave, if anything does."""
        self._beginning = None
        if not self._waiting:
            self._intake.busy = False
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
        elif self._wire.is_open() and not self._waiting.timed:
            self._send()
        else:
            self._carry_in_task()

    # -- while all is well -------------------------------------------------------------------

    def _send(self) -> None:
        group: list[Waiting[Change, Outcome]] = []
        try:
            call = self._calls.next(self._waiting, group)
        except Exception as error:  # noqa: BLE001 - told to those whom it befell
            # Not here: somebody may be handing in another change.
            self._loop.call_soon(deliver, group, [_broken(error)] * len(group))
            self._loop.call_soon(self._go_on)
        else:
            rounds = call.rounds()
            self._sent = call, rounds
            self._wire.send(next(rounds), self._replied, self._waiting)

    def _replied(self, replies: list[object] | Lost) -> None:
        call, rounds = self._in_flight()
        if isinstance(replies, Lost):
            self._carry_in_task(call, replies.error)
            return
        outcomes: Sequence[Outcome] | None = None
        if not any(isinstance(reply, Exception) for reply in replies):
            try:
                trip = rounds.send(replies)
            except StopIteration as finished:
                outcomes = self._outcomes_at_once(*finished.value)
            except OutcomeUnknown as error:
                outcomes = [error] * len(call.group)
            except ProtocolMismatch:
                pass
            else:
                self._sent = call, rounds
                self._wire.send_next(trip, self._replied)
                return
        if outcomes is None:
            self._carry_in_task(call)
            return
        self._wire.replied(self._waiting)
        deliver(call.group, outcomes)
        self._go_on()

    def _in_flight(self) -> tuple[AnyCall, Rounds]:
        sent, self._sent = self._sent, None
        if sent is None:
            raise RuntimeError("a reply to a call that was not sent")
        return sent

    def _outcomes_at_once(
        self, letters: str, details: list[bytes | None] | None
    ) -> Sequence[Outcome] | None:
        """The outcomes, if the replies tell them all."""
        if not letters.strip("c"):
            return [None] * len(letters)
        return None if details is None else self._outcomes(letters, details, None)

    # -- in a task, until all is well ----------------------------------------------------------

    def _carry_in_task(self, call: AnyCall | None = None, lost: Exception | None = None) -> None:
        # The tasks of a loop that ends have been cancelled: one more would be left behind.
        if not self._wire.is_over():
            self._task = self._loop.create_task(self._carry_all(call, lost))

    async def _carry_all(self, call: AnyCall | None = None, lost: Exception | None = None) -> None:
        """Carry what waits, and `call` first, which may have been carried out."""
        try:
            while call is not None or self._waiting:
                deliver(*await self._carry(call, lost))
                call = lost = None
                if self._durability is None and self._wire.settle() and not self._waiting.timed:
                    break
        finally:
            self._task = None
        self._go_on()

    async def _carry(
        self, call: AnyCall | None, lost: Exception | None
    ) -> tuple[Sequence[Waiting[Change, Outcome]], Sequence[Outcome]]:
        waiting = self._waiting
        group: list[Waiting[Change, Outcome]] = []
        short: NotReplicated | None = None
        deadline: float | None = None
        try:
            if call is not None:
                group, deadline = call.group, self._wire.deadline
            else:
                call, deadline = self._next_call(group)
            (letters, details), short = await self._wire.run(
                self._operation(call), deadline=deadline, waiting=waiting, lost=lost
            )
            self._calls.made(call)
        except KVSError as error:
            late = self._wire.too_late(waiting)
            unsent = self._wire.gave_up or error
            return [*group, *late], [error] * len(group) + [unsent] * len(late)
        except Exception as error:
            logger.exception("a commit failed")
            return group, [_broken(error)] * len(group)
        if not letters.strip("c"):
            return group, [short] * len(group)
        if details is None:
            try:
                details = await self._read_afresh(call, letters)
            except KVSError as error:  # what was made was made, all the same
                return group, [short if letter == "c" else error for letter in letters]
        return group, self._outcomes(letters, details, short)

    def _operation(
        self, call: AnyCall
    ) -> Callable[[Connection], Awaitable[tuple[Outcomes, NotReplicated | None]]]:
        """Make the call, and tell what the server could not confirm of it in time."""

        async def commit(connection: Connection) -> tuple[Outcomes, NotReplicated | None]:
            outcomes = await converse(connection, call.rounds())
            if self._durability is None or "c" not in outcomes[0]:
                return outcomes, None
            return outcomes, await self._durability.confirm(connection)

        return commit

    def _next_call(self, group: list[Waiting[Change, Outcome]]) -> tuple[AnyCall, float | None]:
        """The next call, of what moves into `group`; and until when it is tried."""
        if not self._waiting.timed:
            return self._calls.next(self._waiting, group), None
        source, deadline = self._wire.take(self._waiting, self._changes_max)
        try:
            return self._calls.next(source, group), deadline
        finally:
            self._waiting.put_back(source)

    async def _read_afresh(self, call: AnyCall, letters: str) -> list[bytes | None]:
        """The details of what was not made, as far as they can be told afterwards."""
        lacking = self._calls.lacking(call, letters)
        if not lacking:
            return []
        names = [name for _, name in lacking]
        found = await self._wire.run(
            lambda connection: reading.read(connection, names),
            deadline=self._wire.deadline,
            writes=False,
            waiting=self._waiting,
        )
        # A guard that has become something else by now is told by the retry that follows.
        return [
            name if letters[at] == "t" else data if isinstance(data, bytes) else None
            for (at, name), data in zip(lacking, found, strict=True)
        ]

    def _outcomes(
        self, letters: str, details: list[bytes | None], made: NotReplicated | None
    ) -> list[Outcome]:
        return told(letters, details, made, self._key_of)

    def _key_of(self, name: bytes) -> str:
        return name.decode().removeprefix(self._prefix)


def _broken(error: Exception) -> Outcome:
    return OutcomeUnknown(f"a commit failed: {error!r}")
