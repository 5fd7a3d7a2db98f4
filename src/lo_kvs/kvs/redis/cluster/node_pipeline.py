"""One connection to a node of a cluster: requests of many slots leave in one pipeline.

Each reply is judged by itself, and what it means for its request is told to the traffic. While
one pipeline is on its way, the next one fills.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, Protocol

from redis.exceptions import AskError, MovedError, NoScriptError

from lo_kvs.kvs.batching.deadlines import Turn
from lo_kvs.kvs.errors import KVSError
from lo_kvs.kvs.redis.cluster.requests import Request
from lo_kvs.kvs.redis.cluster.slots import Address, host_of
from lo_kvs.kvs.redis.durability import NO_WAITING, Durability
from lo_kvs.kvs.redis.protocol import server_errors
from lo_kvs.kvs.redis.protocol.limits import Regroup
from lo_kvs.kvs.redis.protocol.round_trips import ANSWERED, RawConnection, converse, reply_on
from lo_kvs.kvs.redis.protocol.server_errors import Verdict
from lo_kvs.kvs.redis.server.connection import Connection
from lo_kvs.kvs.tasks import start
from lo_kvs.redis_connection import RedisConnection

logger = logging.getLogger(__name__)

#: A pipeline is bounded, so that packing it never holds the event loop up for long.
PIPELINE_REQUESTS_MAX: Final = 500
PIPELINE_BYTES_MAX: Final = 4 * 1024 * 1024

#: It makes the next command be carried out by the node that a slot is moving to.
ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"


class RequestListener(Protocol):
    """What is told of a request that a lane has sent, or could not send.

    The error is what the server answered, or what befell the connection.

    turn  how long a request is tried at least; notes how long answers take
    """

    turn: Turn

    def watch(self) -> None:
        """Something leaves, and may take long."""

    def moved(self, request: Request, to: Address, error: Exception) -> None:
        """Its slot is served by another node from now on."""

    def asked(self, request: Request, at: Address, error: Exception) -> None:
        """Its slot is moving there, and its keys are there already."""

    def not_now(self, request: Request, error: Exception) -> None:
        """Nothing was done, and waiting may help."""

    def lost(self, request: Request, error: Exception) -> None:
        """The connection broke before its answer came."""

    def expired(self, request: Request) -> None:
        """Its deadline passed before its answer came."""


class NodePipeline(Connection):
    """Carries requests to one node, in pipelines, one pipeline at a time.

    durability  what a pipeline's changes wait for on the connection, when they have been
                answered and before that is told
    """

    def __init__(
        self,
        connection: RedisConnection,
        address: Address,
        listener: RequestListener,
        durability: Durability = NO_WAITING,
    ) -> None:
        self._confirm = durability.confirm if durability.waits else None
        if self._confirm is None:
            super().__init__(connection)
        else:
            super().__init__(connection, greet=durability.check, extra_s=durability.timeout)
        self.address = address
        self._listener = listener
        self._ready: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        # The pipeline under way, the `queue` of those in it that still wait for their answers.
        self._pipeline: list[Request] = []
        self._sent = False  # whether anything of it may have reached the node
        self._began = 0.0  # when it left

    def add(self, request: Request) -> None:
        """Take `request` into the pipeline that leaves next."""
        request.queue = self
        self._ready.append(request)
        if self._task is None:
            self._task = start(self._run(), self._abandon, self._ended)
            self._listener.watch()

    def is_stuck(self, since: float) -> bool:
        """Whether a pipeline that left before then is still under way."""
        return self._task is not None and self._began <= since

    async def _run(self) -> None:
        while self._ready:
            await self._carry()

    def _abandon(self, error: BaseException) -> None:
        # What waits is not begun again: when an event loop ends, nobody would wait for that.
        left = [each for each in self._pipeline if each.queue is self._pipeline]
        waiting = [each for each in self._ready if each.queue is self]
        self._ready.clear()
        for request in left:
            request.maybe_applied = request.maybe_applied or (self._sent and request.writes)
        for request in [*left, *waiting]:
            request.queue = None
            request.cancel_timer()
            request.abandoned(self.settings.place, error)

    def _ended(self) -> None:
        self._task = None
        if self._ready:
            self._task = start(self._run(), self._abandon, self._ended)

    async def _carry(self) -> None:
        pipeline, commands, talks_at = self._taken()
        if not pipeline:
            return
        self._pipeline, self._sent = pipeline, False
        self._began = asyncio.get_running_loop().time()
        unconfirmed: list[tuple[Request, object]] = []
        try:
            async with asyncio.timeout_at(self._limit(pipeline)):
                connection = await self._connected()
                self._sent = True
                began = asyncio.get_running_loop().time()
                if commands:
                    await connection.send_packed_command(commands, check_health=False)
                for at, request in enumerate(pipeline):
                    reply = await self._answer(connection, request, talk=at >= talks_at)
                    if isinstance(reply, Exception):
                        self._judge(request, reply)
                    elif self._confirm is None:
                        self._take_answer(request, reply)
                    else:
                        unconfirmed.append((request, reply))
                if self._confirm is not None and unconfirmed:
                    shortfall = await self._confirm(connection)
                    for request, reply in unconfirmed:
                        self._take_answer(request, reply, shortfall)
            self._listener.turn.note(asyncio.get_running_loop().time() - began)
        except Exception as error:  # noqa: BLE001 - all who wait get it, one by one
            await self._drop()
            self._lost([each for each in pipeline if each.queue is pipeline], error)
        except BaseException:
            await self._drop()  # a reply may be under way: nobody else must read it
            raise

    def _limit(self, pipeline: list[Request]) -> float:
        """Until when replies are waited for: as long as any of the requests has time.

        One whose own deadline is sooner is given up then, by itself.
        """
        deadlines = [each.deadline for each in pipeline]
        limit = min(self._began + self._attempt_s, max(deadlines))
        if min(deadlines) < limit:
            loop = asyncio.get_running_loop()
            for request in pipeline:
                if request.deadline < limit:
                    request.timer = loop.call_at(request.deadline, self._overdue, request)
        return limit

    def _overdue(self, request: Request) -> None:
        request.maybe_applied = request.maybe_applied or (self._sent and request.writes)
        request.fault = request.fault or TimeoutError()
        self._listener.expired(request)

    def _is_answered(self, request: Request) -> bool:
        """Whether it was given up meanwhile; else it is answered now."""
        if request.queue is not self._pipeline:
            return True
        request.queue = None
        if request.timer is not None:
            request.cancel_timer()
        return False

    def _lost(self, left: list[Request], error: Exception) -> None:
        """The connection broke, or was not had, before these were answered."""
        # Whatever it was, nobody must wait for ever.
        if not isinstance(error, server_errors.FAULTS):
            logger.error("a pipeline to %s failed", self.settings.place, exc_info=error)
        refused = server_errors.classify(error).verdict is Verdict.REFUSED
        for request in left:
            if refused and not self._sent:  # it does not let us in
                self._judge(request, error)
            else:
                request.maybe_applied = request.maybe_applied or (self._sent and request.writes)
                request.breaks += self._sent and not isinstance(error, TimeoutError)
                request.queue = None
                request.cancel_timer()
                self._listener.lost(request, error)

    def _taken(self) -> tuple[list[Request], list[bytes], int]:
        """The requests of the next pipeline; the commands of those that take one; and where
        those begin that take several round trips.
        """
        group: list[Request] = []  # those that take one command; the others follow at its end
        talks: list[Request] = []
        commands: list[bytes] = []
        size = 0
        whole_sent = False
        while self._ready and len(group) < PIPELINE_REQUESTS_MAX and size < PIPELINE_BYTES_MAX:
            request = self._ready.popleft()
            if not self._takes(request):
                continue
            # A node that forgot the script learns it from the first of those that it refused;
            # one that was refused twice carries the text itself.
            whole = request.noscript_count > 1 or (request.noscript_count == 1 and not whole_sent)
            whole_sent = whole_sent or whole
            try:
                packed = request.packed(whole=whole)
            except Exception as error:
                logger.exception("a request cannot be packed")
                request.failed(request.misunderstood(error))
                continue
            if packed is None:
                talks.append(request)
                continue
            if request.ask_at is not None:
                commands.append(ASKING)
            commands.append(packed)
            size += len(packed)
            request.queue = group
            group.append(request)
        talks_at = len(group)
        for request in talks:
            request.queue = group
        group += talks
        return group, commands, talks_at

    def _takes(self, request: Request) -> bool:
        """Whether it still waits here: it may have been given up, or waits elsewhere by now."""
        if request.queue is not self:
            return False
        request.queue = None
        if request.timer is not None:
            request.cancel_timer()
        return True

    def _judge(self, request: Request, reply: Exception) -> None:
        if self._is_answered(request):
            return
        if isinstance(reply, KVSError):
            request.failed(reply)
        elif isinstance(reply, Regroup):
            request.regroup()
        elif isinstance(reply, NoScriptError):
            request.noscript_count += 1
            self.add(request)
        elif isinstance(reply, MovedError):
            self._listener.moved(request, self._redirected(reply), reply)
        elif isinstance(reply, AskError):
            self._listener.asked(request, self._redirected(reply), reply)
        elif server_errors.classify(reply).verdict is Verdict.REFUSED:
            request.failed(request.refused(self.settings.place, reply))
        else:
            self._listener.not_now(request, reply)

    def _take_answer(
        self, request: Request, reply: object, shortfall: KVSError | None = None
    ) -> None:
        if self._is_answered(request):
            return
        try:
            request.answered(reply, shortfall)
        except Exception as error:
            logger.exception("an answer of %s makes no sense", self.settings.place)
            request.failed(request.misunderstood(error))

    def _redirected(self, error: AskError) -> Address:
        return host_of(error.host, self.address), error.port

    async def _answer(self, connection: RawConnection, request: Request, *, talk: bool) -> object:
        """The reply to a request, or what a conversation comes to; or the error that ends it."""
        if not talk:
            if request.ask_at is not None:
                await reply_on(connection)
            return await reply_on(connection)
        try:
            # Conversations take turns. One whose deadline passed meanwhile has no call any more.
            if request.queue is self._pipeline:
                await request.check(connection, self.settings.place)
            if request.queue is self._pipeline:
                return await converse(connection, request.rounds())
            return None
        except (*ANSWERED, KVSError, Regroup) as error:
            return error
