"""Connection: one connection to Redis, on which operations are retried until their deadline.

redis-py's own retries are not used: they resend a command after a time-out, and a commit that is
sent twice would conflict with its own write. `dispatcher` and `cluster` decide what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias, TypeVar

from redis.asyncio.connection import AbstractConnection

from lo_kvs.kvs.batching.inbox import resolve_all
from lo_kvs.kvs.batching.overdue_timer import OverdueTimer
from lo_kvs.kvs.batching.queue import Answer, Item, Pending, PendingQueue
from lo_kvs.kvs.errors import KVSError
from lo_kvs.kvs.redis.protocol import server_errors
from lo_kvs.kvs.redis.protocol.limits import Regroup
from lo_kvs.kvs.redis.protocol.round_trips import RawConnection, RoundTrip
from lo_kvs.kvs.redis.protocol.server_errors import Verdict
from lo_kvs.kvs.redis.server.reply_protocol import Done, ReplyProtocol
from lo_kvs.redis_connection import RedisConnection

T = TypeVar("T")
#: The result of reading a key: its bytes, `None` if it is absent, or an error.
Lookup: TypeAlias = bytes | KVSError | None

#: Do not start an attempt with less time than this: if cut off, its outcome would be unknown.
ATTEMPT_MIN_S: Final = 0.02
PAUSE_MIN_S: Final = 0.01
PAUSE_MAX_S: Final = 0.5


class Connection:
    """One connection from a pool; it is kept, and replaced when it breaks.

    greet    runs on each new connection before anything else
    extra_s  extra seconds for each operation, for replication that it waits for
    """

    def __init__(
        self,
        connection: RedisConnection,
        *,
        greet: Callable[[RawConnection], Awaitable[None]] | None = None,
        extra_s: float = 0.0,
    ) -> None:
        self._connection = connection
        self._redis: AbstractConnection | None = None
        self._greet = greet
        self._attempt_s = connection.settings.timeout + extra_s
        self._try_for_s = connection.settings.retry_for + extra_s
        self.settings = connection.settings
        #: The deadline of the latest run.
        self.deadline = 0.0
        #: The error with which the latest run gave up, for calls that were not sent.
        self.gave_up: KVSError | None = None
        self._overdue_timer = OverdueTimer(self._try_for_s, self._fail_late, self._too_slow)
        #: Whether a command of the current run may have been executed.
        self.maybe_applied = False
        self._sent_at = 0.0  # when the current attempt started to send; 0.0: not yet
        self._clock = asyncio.get_running_loop().time
        self._reply_protocol: ReplyProtocol | None = None
        self._fault: Exception | None = None  # the last error of the current run

    async def run(
        self,
        operation: Callable[[RawConnection], Awaitable[T]],
        *,
        deadline: float | None = None,
        writes: bool = True,
        waiting: PendingQueue[Any, Any] | None = None,
        lost: Exception | None = None,
        breaks_max: int | None = None,
    ) -> T:
        """Run `operation` until it has a definite result or the deadline has passed.

        It may run more than once. Raises `Refused` if the server refused it, `Unavailable` if no
        attempt can have been executed, `OutcomeUnknown` if one may have been; `server_errors`
        chooses the subclass for the last error.

        deadline    in the event loop's time; default and maximum: as the settings say
        writes      whether it changes data; the outcome of reads is never unknown
        waiting     the items queued behind it
        lost        the error of an earlier attempt by `send`, which may have been executed
        breaks_max  how often the connection may break after the operation has started
        """
        clock = self._clock
        start = clock()
        if deadline is None:
            deadline = start + self._try_for_s
        self.deadline = deadline
        overdue_timer = self._overdue_timer
        if waiting is not None:
            overdue_timer.begin(waiting, start)
        pause = PAUSE_MIN_S
        self.maybe_applied = writes and lost is not None
        tries = 0 if lost is None else 1
        self._connection.failed_attempts += tries
        self.gave_up = None
        breaks = 0
        why = self._fault = lost
        while True:
            limit = min(deadline, clock() + self._attempt_s)
            try:
                answer = await self._attempt(operation, limit)
                if waiting is not None:
                    waiting.retry_floor.record(clock() - self._sent_at)
                    overdue_timer.end(waiting, failed_attempts=tries)
                return answer
            except server_errors.FAULTS as error:
                sent = self._sent_at > 0.0
                await self._failed(error, waiting, tries, may_be_done=writes and sent)
                # A time-out by the deadline says less than the error before it.
                if why is None or limit < deadline or not isinstance(error, TimeoutError):
                    why = self._fault = error
                breaks += sent and not isinstance(error, TimeoutError)
            except (KVSError, Regroup):  # all replies were read
                if waiting is not None:
                    overdue_timer.end(waiting, failed_attempts=tries)
                raise
            except BaseException:
                overdue_timer.busy = False
                self.maybe_applied = self.maybe_applied or (writes and self._sent_at > 0.0)
                await self._drop()  # a reply may still arrive, and nothing else must read it
                raise
            tries += 1
            self._connection.failed_attempts += 1
            pause = min(pause * 2, PAUSE_MAX_S) * random.uniform(0.5, 1.0)
            left = deadline - clock() - ATTEMPT_MIN_S
            if left < PAUSE_MIN_S or breaks == breaks_max:
                raise self._give_up(why, tries, clock() - start) from why
            await asyncio.sleep(min(pause, left))

    async def _attempt(self, operation: Callable[[RawConnection], Awaitable[T]], limit: float) -> T:
        self._sent_at = 0.0
        async with asyncio.timeout_at(limit):
            await self._leave_reply_protocol()
            connection = await self._connected()
            self._sent_at = self._clock()
            return await operation(connection)

    async def _failed(
        self,
        error: Exception,
        waiting: PendingQueue[Any, Any] | None,
        tries: int,
        *,
        may_be_done: bool,
    ) -> None:
        """An attempt failed. Raises `Refused` or `OutcomeUnknown` if a retry cannot help."""
        meaning = server_errors.classify(error)
        if meaning.drop or meaning.verdict is Verdict.LOST:
            await self._drop()
        if meaning.verdict is Verdict.REFUSED:
            if waiting is not None:
                self._overdue_timer.end(waiting, failed_attempts=tries)
            unknown = self.maybe_applied
            raise server_errors.refused(self.settings.place, error, unknown=unknown) from error
        if may_be_done and meaning.verdict is Verdict.LOST:
            self.maybe_applied = True

    # -- the fast path, without retry ------------------------------------------------------

    def settle(self) -> bool:
        """Install the reply protocol, if possible. Returns whether `send` can be used."""
        # Not with Sentinel: such a connection asks the Sentinels before it sends anything.
        if self._reply_protocol is None and self._redis is not None and not self.settings.sentinels:
            self._reply_protocol = ReplyProtocol.on(self._redis)
        return self.is_open()

    def is_open(self) -> bool:
        """Whether `send` can be used."""
        return self._reply_protocol is not None and self._reply_protocol.is_open

    def renew(self) -> None:
        """Start a new deadline for the next run."""
        self.deadline = self._clock() + self._try_for_s

    def is_over(self) -> bool:
        """Whether the event loop is closing and its connections are closed."""
        return not self._connection.is_open()

    def send(self, trip: RoundTrip, done: Done, waiting: PendingQueue[Any, Any]) -> None:
        """Send commands once, while `is_open()`. Calls `done` with the replies or with `Lost`.

        If the replies are not good, use `run`, which retries.
        """
        now = self._clock()
        self.deadline = now + self._try_for_s
        self._fault = None
        self._overdue_timer.begin(waiting, now)
        self.send_next(trip, done)

    def send_next(self, trip: RoundTrip, done: Done) -> None:
        """Send the next commands of a call that `send` started, from its `done` callback."""
        if self._reply_protocol is not None:
            self._reply_protocol.send(trip, done)

    def replied(self, waiting: PendingQueue[Any, Any]) -> None:
        """The call was answered with good replies, and there is no more to send."""
        if waiting.timed:
            waiting.retry_floor.record(self._clock() - self.deadline + self._try_for_s)
        self._overdue_timer.end(waiting, failed_attempts=0)

    def distrust(self) -> None:
        """Stop using the reply protocol: the latest replies do not fit the commands."""
        if self._reply_protocol is not None:
            self._reply_protocol.is_open = False

    def _too_slow(self, taken_s: float) -> None:
        if self._reply_protocol is not None and taken_s >= min(self._attempt_s, self._try_for_s):
            self._reply_protocol.lose(TimeoutError())

    async def _leave_reply_protocol(self) -> None:
        reply_protocol, self._reply_protocol = self._reply_protocol, None
        if reply_protocol is not None:
            well = reply_protocol.is_open
            reply_protocol.end()
            if not well:  # it is closed, or a reply may still arrive that nothing must read
                await self._drop()

    # -- queued items ------------------------------------------------------------------------

    def _give_up(self, why: Exception, tries: int, tried_s: float) -> KVSError:
        error = functools.partial(
            server_errors.gave_up, self.settings.place, why, tried_s=tried_s, tries=tries
        )
        self._overdue_timer.busy = False
        self.gave_up = error()
        return error(unknown=self.maybe_applied)

    def pop_group(
        self, waiting: PendingQueue[Item, Answer], most: int
    ) -> tuple[deque[Pending[Item, Answer]], float]:
        """Remove the next group, if any item has a deadline; also return its deadline."""
        now = asyncio.get_running_loop().time()
        taken, soonest = waiting.pop_group(now, self._try_for_s, most)
        return taken, min(max(soonest, now + waiting.retry_floor.seconds), now + self._try_for_s)

    def too_late(self, waiting: PendingQueue[Item, Answer]) -> list[Pending[Item, Answer]]:
        """Remove and return the items whose deadline passed during the latest run.

        They were not sent. Empty if that run did not give up.
        """
        if self.gave_up is None:
            return []
        now = asyncio.get_running_loop().time()
        self._overdue_timer.set_deadlines(waiting, now)
        return waiting.overdue(max(self.deadline, now))

    def _fail_late(self, late: list[Pending[Any, Any]], waited_s: float) -> None:
        """Fail the items whose deadline passed while they are queued behind the current run."""
        self._connection.failed_attempts += 1
        error = server_errors.overtaken(self.settings.place, self._fault, waited_s=waited_s)
        resolve_all(late, [error] * len(late))

    async def aclose(self) -> None:
        """Give the connection back to its pool."""
        await self._leave_reply_protocol()
        if self._redis is not None:
            redis, self._redis = self._redis, None
            await self._connection.client().connection_pool.release(redis)

    async def _connected(self) -> AbstractConnection:
        if self._redis is None:
            pool = self._connection.client().connection_pool
            self._redis = await pool.get_connection()  # type: ignore[no-untyped-call]
        elif self._redis.is_connected:
            return self._redis
        else:
            await self._redis.connect()  # type: ignore[no-untyped-call]
        if self._greet is not None:
            try:
                await self._greet(self._redis)
            except BaseException:
                await self._drop()  # so that the next attempt runs `greet` again
                raise
        return self._redis

    async def _drop(self) -> None:
        if self._redis is not None:
            # A broken connection may raise another error while it is closed; it is closed anyway.
            with contextlib.suppress(*server_errors.FAULTS):
                await self._redis.disconnect(nowait=True)
