"""What is handed in leaves in groups, over one connection, one conversation at a time.

While all is well a call is sent when the one before it is answered, from where its answer was
read. What is not answered as it should be is carried by a task until it is, or its deadline
has passed; and whatever waits meanwhile with it.
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
    """A group that leaves together; `rounds()` is the conversation, as often as it is tried."""

    @property
    def group(self) -> list[Any]:
        """A pair for each that leaves: the second of it is called with the answer."""

    def rounds(self) -> Rounds[Result_co]:
        """The conversation from its beginning."""


class Dispatcher(abc.ABC, Generic[Item, Answer, Result]):
    """Carries items in groups, and tells each its answer.

    writes   whether a call changes anything; one that does not can be made again at will
    enough   when so many wait, a burst's first part leaves at once; 0: when all is handed in
    most     items of one call
    short    whether calls may leave without a task, while all is well

    submit, close  as of `Inbox`
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
        self._beginning: asyncio.Handle | None = None  # until the first of a burst leaves
        self._waiting: PendingQueue[Item, Answer] = self._inbox.waiting
        self.submit, self.close = self._inbox.submit, self._inbox.close
        self._sent: tuple[Call[Result], Rounds[Result]] | None = None
        self._task: asyncio.Task[None] | None = None  # that carries, where that needs a task
        self._group: list[Any] = []  # what it carries
        self._idle: asyncio.Future[None] | None = None

    # -- what is carried ---------------------------------------------------------------------

    @abc.abstractmethod
    def next_call(self, source: deque[Pending[Item, Answer]], group: list[Any]) -> Call[Result]:
        """The next call, of what moves from the left end of `source` into `group`."""

    @abc.abstractmethod
    def answers(
        self, call: Call[Result], result: Result, shortfall: KVSError | None = None
    ) -> Sequence[Answer | KVSError] | None:
        """The answer to each of the group; `None` where the result does not tell all.

        shortfall  as `confirm` returned it
        """

    def is_unchecked(self, call: Call[Result]) -> bool:
        """Whether `check` has something to ask before `call` is sent."""
        return False

    async def check(self, connection: RawConnection, call: Call[Result]) -> None:
        """Raises `Refused` or `Regroup` where the server cannot take `call`; nothing was sent."""

    def take_apart(self, call: Call[Result]) -> None:
        """Put what `call` has back, to wait for other calls."""
        raise NotImplementedError

    async def confirm(self, connection: RawConnection, result: Result) -> KVSError | None:
        """Wait, on the same connection, until it is safe; what it lacks of that in time."""
        return None

    async def answers_afresh(
        self, call: Call[Result], result: Result, shortfall: KVSError | None
    ) -> Sequence[Answer | KVSError]:
        """The same where `answers` cannot tell."""
        raise NotImplementedError

    @abc.abstractmethod
    def broken(self, error: Exception) -> KVSError:
        """What a fault of our own comes to."""

    # -- when it leaves ----------------------------------------------------------------------

    async def aclose(self) -> None:
        """Wait until everything has been answered, then give the connection back."""
        if self._inbox.busy:
            if self._idle is None:
                self._idle = self._loop.create_future()
            await asyncio.wait([self._idle])
        await self._connection.aclose()

    def _begin(self) -> None:
        if self._connection.is_open():
            # What else is handed in until then goes along.
            self._beginning = self._loop.call_soon(self._go_on)
        else:
            self._carry_in_task()

    def _hurry(self) -> None:
        """A part of a burst leaves: the server works on it while the rest is handed in."""
        if self._beginning is not None:
            self._beginning.cancel()
            self._go_on()

    def _go_on(self) -> None:
        """Have what waits leave, if anything does."""
        self._beginning = None
        if not self._waiting:
            self._inbox.busy = False
            if self._idle is not None and not self._idle.done():
                self._idle.set_result(None)
        elif self._connection.is_open() and not self._waiting.timed:
            self._send()
        else:
            self._carry_in_task()

    # -- while all is well -------------------------------------------------------------------

    def _send(self) -> None:
        group: list[Any] = []
        try:
            call = self.next_call(self._waiting, group)
            if self.is_unchecked(call):
                self._connection.renew()
                self._carry_in_task(call)
                return
            rounds = call.rounds()
            trip = next(rounds)
        except Exception as error:  # noqa: BLE001 - their callers get it
            # Not here: somebody may be handing in another item.
            self._loop.call_soon(resolve_all, *self._befallen(group, error))
            self._loop.call_soon(self._go_on)
        else:
            self._sent = call, rounds
            self._connection.send(trip, self._replied, self._waiting)

    def _replied(self, replies: list[object] | Lost) -> None:
        call, rounds = self._in_flight()
        if isinstance(replies, Lost):
            self._carry_in_task(call, replies.error)
            return
        try:
            step = self._step(call, rounds, replies)
        except Exception as error:  # noqa: BLE001 - a reply can be anything; it is asked for again
            self._connection.distrust()  # whose reply was it, and whose is the next one?
            self._carry_in_task(call, error)
            return
        if isinstance(step, RoundTrip):
            self._sent = call, rounds
            self._connection.send_next(step, self._replied)  # may have failed when it returns
            return
        if step is None:
            self._carry_in_task(call, lost_among(replies))
            return
        self._connection.replied(self._waiting)
        try:
            resolve_all(call.group, step)
        finally:  # a callback may have raised KeyboardInterrupt
            self._go_on()

    def _step(
        self, call: Call[Result], rounds: Rounds[Result], replies: list[object]
    ) -> RoundTrip | Sequence[Any] | None:
        """What is sent next, or what the call's items are answered; `None` for a task to find."""
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

    # -- in a task, until all is well ----------------------------------------------------------

    def _carry_in_task(
        self, call: Call[Result] | None = None, lost: Exception | None = None
    ) -> None:
        self._group = [] if call is None else call.group
        self._connection.maybe_applied = self.writes and lost is not None
        if call is not None and self._connection.is_over():
            # The loop ends, and has cancelled its tasks: one more would be left behind.
            self._abandon(asyncio.CancelledError("the event loop ends"))
            self._go_on()
        else:
            self._task = start(self._carry_all(call, lost), self._abandon, self._ended)

    async def _carry_all(
        self, call: Call[Result] | None = None, lost: Exception | None = None
    ) -> None:
        """Carry what waits, and `call` first, which may have been carried out."""
        while call is not None or self._waiting:
            group, answers = await self._carry(call, lost)
            self._group = []
            resolve_all(group, answers)
            call = lost = None
            if self._short and self._connection.settle() and not self._waiting.timed:
                break

    def _ended(self) -> None:
        self._task = None
        self._go_on()

    def _abandon(self, error: BaseException) -> None:
        """Answer everything: the task that carried it was ended by `error`.

        What waits is not begun again: when an event loop ends, nobody would wait for that.
        """
        why = f"the task that carried it was ended by {error!r}"
        group, self._group = [each for each in self._group if each is not None], []
        unsent = [*self._waiting]
        self._waiting.clear()
        why = f"{self._connection.settings.place}: {why}"
        answer: KVSError = Unavailable(f"{why}; nothing of it was sent")
        resolve_all(unsent, [answer] * len(unsent))
        if self._connection.maybe_applied:
            answer = OutcomeUnknown(f"{why}; what was sent may have been done")
        resolve_all(group, [answer] * len(group))

    async def _carry(
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
            result, shortfall = await self._made(call, deadline, lost)
            answers = self.answers(call, result, shortfall)
            if answers is None:
                answers = await self.answers_afresh(call, result, shortfall)
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
            return self._befallen(group, error)
        return group, answers

    async def _made(
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
        """The next call, and until when it is tried."""
        if not self._waiting.timed:
            return self.next_call(self._waiting, group), None
        source, deadline = self._connection.pop_group(self._waiting, self._most)
        try:
            return self.next_call(source, group), deadline
        finally:
            self._waiting.put_back(source)

    def _befallen(self, group: list[Any], error: Exception) -> tuple[list[Any], Sequence[Any]]:
        """Those whose call could not be made, one at least, and what they are told."""
        if not group and self._waiting:
            group = [self._waiting.popleft()]
        return group, [self.broken(error)] * len(group)
