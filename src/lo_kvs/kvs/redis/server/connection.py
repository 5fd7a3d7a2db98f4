"""The way to Redis: one connection, tried until a deadline.

redis-py's own retries are not used: it sends a command again after a time-out, and a commit
that is sent again meets its own write. `single_server` and `cluster` say what is sent here.
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
#: What reading a key comes to: its bytes, `None` where it is absent, or what went wrong.
Lookup: TypeAlias = bytes | KVSError | None

#: An attempt with less time than this is not begun: cut off, it would leave things unknown.
ATTEMPT_MIN_S: Final = 0.02
PAUSE_MIN_S: Final = 0.01
PAUSE_MAX_S: Final = 0.5


class Connection:
    """One connection of a pool, kept, and replaced when it breaks.

    greet    runs on each new connection before anything else
    extra_s  seconds that an operation may take for what it waits for by itself
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
        #: When the latest run had or has to end.
        self.deadline = 0.0
        #: What the latest run gave up with, as those see it whose turn did not come.
        self.gave_up: KVSError | None = None
        self._overdue_timer = OverdueTimer(self._try_for_s, self._fail_late, self._too_slow)
        #: Whether what the run under way has sent may have been done.
        self.maybe_applied = False
        self._sent_at = 0.0  # when the attempt under way began to send; 0.0: not yet
        self._clock = asyncio.get_running_loop().time
        self._reply_protocol: ReplyProtocol | None = None
        self._fault: Exception | None = None  # of the run that is under way

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
        """Run `operation` until it has a definite answer, or the deadline has passed.

        It may run more than once. Raises `Refused` when the server said no, `Unavailable`
        when no attempt can have done anything, `OutcomeUnknown` when one may have; and of
        these the kinds that `kvs/answers.py` has for the last fault.

        deadline  in the event loop's time; default, and the latest: as the settings say
        writes    whether it changes anything: without an answer, what does not has done
                  nothing, and no outcome is unknown
        waiting   what waits behind it in a lane
        lost      what befell an attempt before, made by `send`, that may have been carried out
        breaks_max  how often the connection may break after the operation has begun
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
                    waiting.turn.note(clock() - self._sent_at)
                    overdue_timer.end(waiting, failed_attempts=tries)
                return answer
            except server_errors.FAULTS as error:
                sent = self._sent_at > 0.0
                await self._failed(error, waiting, tries, may_be_done=writes and sent)
                # An attempt that the deadline cut short says less than the one before it.
                if why is None or limit < deadline or not isinstance(error, TimeoutError):
                    why = self._fault = error
                breaks += sent and not isinstance(error, TimeoutError)
            except (KVSError, Regroup):  # every reply was read
                if waiting is not None:
                    overdue_timer.end(waiting, failed_attempts=tries)
                raise
            except BaseException:
                overdue_timer.busy = False
                self.maybe_applied = self.maybe_applied or (writes and self._sent_at > 0.0)
                await self._drop()  # a reply may be under way: nobody else must read it
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
        """An attempt met `error`. Raises `Refused` or `OutcomeUnknown` where another is no use."""
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

    # -- the short way, while all is well --------------------------------------------------

    def settle(self) -> bool:
        """Whether `send` can be used from now on. Where not, `run` can be, as ever."""
        # A connection by way of Sentinel asks them now and then, before it sends anything.
        if self._reply_protocol is None and self._redis is not None and not self.settings.sentinels:
            self._reply_protocol = ReplyProtocol.on(self._redis)
        return self.is_open()

    def is_open(self) -> bool:
        """Whether `send` can be used."""
        return self._reply_protocol is not None and self._reply_protocol.is_open

    def renew(self) -> None:
        """What is run next has all its time, from now on."""
        self.deadline = self._clock() + self._try_for_s

    def is_over(self) -> bool:
        """Whether the event loop ends, and its connections are closed: nobody waits any more."""
        return not self._connection.is_open()

    def send(self, trip: RoundTrip, done: Done, waiting: PendingQueue[Any, Any]) -> None:
        """Send commands once, while `is_open()`; `done(replies)` is called, or `done(Lost)`.

        What are no good replies is for `run`, which tries again.
        """
        now = self._clock()
        self.deadline = now + self._try_for_s
        self._fault = None
        self._overdue_timer.begin(waiting, now)
        self.send_next(trip, done)

    def send_next(self, trip: RoundTrip, done: Done) -> None:
        """Send more of what `send` began, from within its `done`."""
        if self._reply_protocol is not None:
            self._reply_protocol.send(trip, done)

    def replied(self, waiting: PendingQueue[Any, Any]) -> None:
        """The replies to what was sent are good ones, and there is no more to send."""
        if waiting.timed:
            waiting.turn.note(self._clock() - self.deadline + self._try_for_s)
        self._overdue_timer.end(waiting, failed_attempts=0)

    def distrust(self) -> None:
        """The latest replies cannot be what they should be: nothing more is read there."""
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
            if not well:  # it is closed, or a reply may still come: nobody else must read it
                await self._drop()

    # -- what becomes of those who wait ------------------------------------------------------

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
        """Take out what leaves next, where anything has a deadline; and until when it is tried."""
        now = asyncio.get_running_loop().time()
        taken, soonest = waiting.pop_group(now, self._try_for_s, most)
        return taken, min(max(soonest, now + waiting.turn.s), now + self._try_for_s)

    def too_late(self, waiting: PendingQueue[Item, Answer]) -> list[Pending[Item, Answer]]:
        """Take out of `waiting` those whose own time passed while the latest run was tried.

        Nothing of them has been sent. None where it did not give up.
        """
        if self.gave_up is None:
            return []
        now = asyncio.get_running_loop().time()
        self._overdue_timer.note(waiting, now)
        return waiting.overdue(max(self.deadline, now))

    def _fail_late(self, late: list[Pending[Any, Any]], waited_s: float) -> None:
        """The time of these is up, and they wait behind a run that goes on."""
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
                await self._drop()  # so that the next attempt begins with a greeting again
                raise
        return self._redis

    async def _drop(self) -> None:
        if self._redis is not None:
            # What broke may break once more while it is closed, and is closed all the same.
            with contextlib.suppress(*server_errors.FAULTS):
                await self._redis.disconnect(nowait=True)
