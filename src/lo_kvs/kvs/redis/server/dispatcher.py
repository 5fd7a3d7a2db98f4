"""Dispatcher: sends queued items in groups over one connection, one call at a time, with retry.

Without errors, a call is sent from the callback in which the reply to the previous one was read.
After an error, a task retries the call until it is answered or its deadline has passed, and then
sends the items that were queued meanwhile.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from lo_kvs.kvs.batching.inbox import Inbox, resolve_all
from lo_kvs.kvs.batching.queue import Answer, Item, Pending, PendingQueue
from lo_kvs.kvs.errors import KVSError, OutcomeUnknown, Unavailable
from lo_kvs.kvs.redis.protocol.limits import BREAKS_MAX, Regroup
from lo_kvs.kvs.redis.protocol.round_trips import RawConnection, Rounds, RoundTrip, converse
from lo_kvs.kvs.redis.protocol.server_errors import lost_among
from lo_kvs.kvs.redis.server.connection import Connection
from lo_kvs.kvs.redis.server.reply_protocol import Lost
from lo_kvs.kvs.tasks import start

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Call(Protocol[Result_co]):
    """A group that is sent together; `rounds()` starts its round trips, for every attempt."""

    @property
    def group(self) -> list[Any]:
        """A tuple for each item; its second element is the callback for the answer."""

    def rounds(self) -> Rounds[Result_co]:
        """The round trips from the start."""


class Dispatcher(abc.ABC, Generic[Item, Answer, Result]):
    """Sends items in groups, and calls each item's callback with its answer.

    writes   whether calls change data; a read can always be repeated
    enough   send the first items of a burst once this many wait; 0: when all are submitted
    most     maximum number of items in one call
    short    whether calls may be sent without a task, while there are no errors

    submit, close  as for `Inbox`
    """

    writes: ClassVar[bool]

    def __init__(
        self, connection: Connection, *, most: int, enough: int = 0, short: bool = True
    ) -> None:
        self._connection = connection
        self._most = most
        self._short = short
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._begin, enough, self._hurry)
        self._beginning: asyncio.Handle | None = None  # until the first call of a burst is sent
        self._waiting: PendingQueue[Item, Answer] = self._inbox.waiting
        self.submit, self.close = self._inbox.submit, self._inbox.close
        self._sent: tuple[Call[Result], Rounds[Result]] | None = None
        self._task: asyncio.Task[None] | None = None  # the task that sends, after an error
        self._group: list[Any] = []  # the group of that task
        self._idle: asyncio.Future[None] | None = None

    # -- for subclasses ----------------------------------------------------------------------

    @abc.abstractmethod
    def next_call(self, source: deque[Pending[Item, Answer]], group: list[Any]) -> Call[Result]:
        """The next call; its items move from the left end of `source` into `group`."""

    @abc.abstractmethod
    def answers(
        self, call: Call[Result], result: Result, shortfall: KVSError | None = None
    ) -> Sequence[Answer | KVSError] | None:
        """The answer for each item of the group; `None` if the result is not sufficient.

        shortfall  the result of `confirm`
        """

    def is_unchecked(self, call: Call[Result]) -> bool:
        """Whether `check` is needed before `call` is sent."""
        return False

    async def check(self, connection: RawConnection, call: Call[Result]) -> None:
        """Raises `Refused` or `Regroup` if the server cannot accept `call`; nothing was sent."""

    def take_apart(self, call: Call[Result]) -> None:
        """Put the items of `call` back into the queue, for other calls."""
        raise NotImplementedError

    async def confirm(self, connection: RawConnection, result: Result) -> KVSError | None:
        """Wait on the same connection until the result is durable; an error if that fails."""
        return None

    async def answers_from_server(
        self, call: Call[Result], result: Result, shortfall: KVSError | None
    ) -> Sequence[Answer | KVSError]:
        """The answers if `answers` returned `None`: asks the server again."""
        raise NotImplementedError

    @abc.abstractmethod
    def broken(self, error: Exception) -> KVSError:
        """The error for callers after an unexpected exception in our code."""

    # -- when calls are sent -----------------------------------------------------------------

    async def aclose(self) -> None:
        """Wait until all items are answered, then give the connection back."""
        if self._inbox.busy:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.wait([self._idle])
        await self._connection.aclose()

    def _begin(self) -> None:
        if self._connection.is_open():
            # Items that are submitted until then join the call.
            self._beginning = self._loop.call_soon(self._send_waiting)
        else:
            self._run_in_task()

    def _hurry(self) -> None:
        """Send the first items of a burst: the server works while the rest is submitted."""
        if self._beginning is not None:
            self._beginning.cancel()
            self._send_waiting()

    def _send_waiting(self) -> None:
        """Send the queued items, if there are any."""
        self._beginning = None
        if not self._waiting:
            self._inbox.busy = False
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
        elif self._connection.is_open() and not self._waiting.timed:
            self._send()
        else:
            self._run_in_task()

    # -- without errors: in callbacks --------------------------------------------------------

    def _send(self) -> None:
        group: list[Any] = []
        try:
            call = self.next_call(self._waiting, group)
            if self.is_unchecked(call):
                self._connection.renew()
                self._run_in_task(call)
                return
            rounds = call.rounds()
            trip = next(rounds)
        except Exception as error:  # noqa: BLE001 - passed to the callers
            # Later, because this may run inside `submit`.
            self._loop.call_soon(resolve_all, *self._unbuilt(group, error))
            self._loop.call_soon(self._send_waiting)
        else:
            self._sent = call, rounds
            self._connection.send(trip, self._replied, self._waiting)

    def _replied(self, replies: list[object] | Lost) -> None:
        call, rounds = self._in_flight()
        if isinstance(replies, Lost):
            self._run_in_task(call, replies.error)
            return
        try:
            step = self._step(call, rounds, replies)
        except Exception as error:  # noqa: BLE001 - a reply can be anything; retry
            self._connection.distrust()  # replies can no longer be assigned to calls
            self._run_in_task(call, error)
            return
        if isinstance(step, RoundTrip):
            self._sent = call, rounds
            self._connection.send_next(step, self._replied)  # may already fail in here
            return
        if step is None:
            self._run_in_task(call, lost_among(replies))
            return
        self._connection.replied(self._waiting)
        try:
            resolve_all(call.group, step)
        finally:  # a callback may have raised KeyboardInterrupt
            self._send_waiting()

    def _step(
        self, call: Call[Result], rounds: Rounds[Result], replies: list[object]
    ) -> RoundTrip | Sequence[Any] | None:
        """The next round trip, or the answers of the call; `None`: a task must find out."""
        if any(isinstance(reply, Exception) for reply in replies):
            return None
        try:
            return rounds.send(replies)
        except StopIteration as finished:
            return self.answers(call, finished.value)
        except KVSError as error:
            return [error] * len(call.group)

    def _in_flight(self) -> tuple[Call[Result], Rounds[Result]]:
        sent, self._sent = self._sent, None
        if sent is None:
            raise RuntimeError("a reply to a call that was not sent")
        return sent

    # -- after an error: in a task, with retry -------------------------------------------------

    def _run_in_task(self, call: Call[Result] | None = None, lost: Exception | None = None) -> None:
        self._group = [] if call is None else call.group
        self._connection.maybe_applied = self.writes and lost is not None
        if call is not None and self._connection.is_over():
            # The loop is closing and has cancelled its tasks: a new one would not finish.
            self._abandon(asyncio.CancelledError("the event loop is closing"))
            self._send_waiting()
        else:
            self._task = start(self._run_all(call, lost), self._abandon, self._ended)

    async def _run_all(
        self, call: Call[Result] | None = None, lost: Exception | None = None
    ) -> None:
        """Send `call`, which may have been executed already, and then all queued items."""
        while call is not None or self._waiting:
            group, answers = await self._run_call(call, lost)
            self._group = []
            resolve_all(group, answers)
            call = lost = None
            if self._short and self._connection.settle() and not self._waiting.timed:
                break

    def _ended(self) -> None:
        self._task = None
        self._send_waiting()

    def _abandon(self, error: BaseException) -> None:
        """Answer all items with an error: the sending task ended with `error`.

        Queued items are not sent by a new task: if the event loop is closing, it would not run.
        """
        why = f"the sending task ended with {error!r}"
        group, self._group = [each for each in self._group if each is not None], []
        unsent = [*self._waiting]
        self._waiting.clear()
        why = f"{self._connection.settings.place}: {why}"
        answer: KVSError = Unavailable(f"{why}. This call was not sent")
        resolve_all(unsent, [answer] * len(unsent))
        if self._connection.maybe_applied:
            answer = OutcomeUnknown(f"{why}. The command may have been executed")
        resolve_all(group, [answer] * len(group))

    async def _run_call(
        self, call: Call[Result] | None, lost: Exception | None
    ) -> tuple[list[Any], Sequence[Any]]:
        group: list[Any] = []
        deadline: float | None = None
        try:
            if call is not None:
                group, deadline = call.group, self._connection.deadline
            else:
                call, deadline = self._timed_call(group)
            self._group = group
            result, shortfall = await self._make_call(call, deadline, lost)
            answers = self.answers(call, result, shortfall)
            if answers is None:
                answers = await self.answers_from_server(call, result, shortfall)
        except Regroup:
            if call is not None:
                self.take_apart(call)
            return [], ()
        except KVSError as error:
            late = self._connection.too_late(self._waiting)
            unsent = self._connection.gave_up or error
            return [*group, *late], [error] * len(group) + [unsent] * len(late)
        except Exception as error:
            logger.exception("a call failed")
            return self._unbuilt(group, error)
        return group, answers

    async def _make_call(
        self, call: Call[Result], deadline: float | None, lost: Exception | None
    ) -> tuple[Result, KVSError | None]:
        async def attempt(connection: RawConnection) -> tuple[Result, KVSError | None]:
            await self.check(connection, call)
            result = await converse(connection, call.rounds())
            return result, await self.confirm(connection, result)

        return await self._connection.run(
            attempt,
            deadline=deadline,
            writes=self.writes,
            waiting=self._waiting,
            lost=lost,
            breaks_max=BREAKS_MAX if self.is_unchecked(call) else None,
        )

    def _timed_call(self, group: list[Any]) -> tuple[Call[Result], float | None]:
        """The next call, and its deadline."""
        if not self._waiting.timed:
            return self.next_call(self._waiting, group), None
        source, deadline = self._connection.pop_group(self._waiting, self._most)
        try:
            return self.next_call(source, group), deadline
        finally:
            self._waiting.put_back(source)

    def _unbuilt(self, group: list[Any], error: Exception) -> tuple[list[Any], Sequence[Any]]:
        """The items whose call could not be built (at least one), and their answers."""
        if not group and self._waiting:
            group = [self._waiting.popleft()]
        return group, [self.broken(error)] * len(group)
