"""NodePipeline: one connection to a node of a cluster; requests of many slots share a pipeline.

Each reply is handled by itself and reported to the `RequestListener`. While one pipeline is in
flight, the next one fills up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Final, Protocol

from redis.exceptions import AskError, MovedError, NoScriptError

from lo_kvs.kvs.batching.deadlines import RetryFloor
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

#: The size of a pipeline is limited, so that packing it never blocks the event loop for long.
PIPELINE_REQUESTS_MAX: Final = 500
PIPELINE_BYTES_MAX: Final = 4 * 1024 * 1024

#: Makes the node to which a slot is moving execute the next command.
ASKING: Final = b"*1\r\n$6\r\nASKING\r\n"


class RequestListener(Protocol):
    """Callbacks for requests that a pipeline has sent, or could not send.

    `error` is the server's error reply, or the error of the connection.

    retry_floor  the minimum time a request is retried; records response times
    """

    retry_floor: RetryFloor

    def watch(self) -> None:
        """A pipeline is being sent: check for overdue changes from now on."""

    def moved(self, request: Request, to: Address, error: Exception) -> None:
        """MOVED: another node serves its slot from now on."""

    def asked(self, request: Request, at: Address, error: Exception) -> None:
        """ASK: its slot is moving to `at`, and its keys are already there."""

    def not_now(self, request: Request, error: Exception) -> None:
        """It was not executed, and a retry may help."""

    def lost(self, request: Request, error: Exception) -> None:
        """The connection broke before it was answered."""

    def expired(self, request: Request) -> None:
        """Its deadline passed before it was answered."""


class NodePipeline(Connection):
    """Sends requests to one node in pipelines, one pipeline at a time.

    durability  what a pipeline waits for after its replies, before its changes are reported
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
        # The pipeline in flight; it is the `queue` of its requests until they are answered.
        self._pipeline: list[Request] = []
        self._sent = False  # whether part of it may have reached the node
        self._began = 0.0  # when it was sent

    def add(self, request: Request) -> None:
        """Put `request` into the next pipeline."""
        request.queue = self
        self._ready.append(request)
        if self._task is None:
            self._task = start(self._run(), self._abandon, self._ended)
            self._listener.watch()

    def is_stuck(self, since: float) -> bool:
        """Whether a pipeline that was sent before `since` is still in flight."""
        return self._task is not None and self._began <= since

    async def _run(self) -> None:
        while self._ready:
            await self._send_pipeline()

    def _abandon(self, error: BaseException) -> None:
        # Queued requests are not sent by a new task: if the loop is closing, it would not run.
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

    async def _send_pipeline(self) -> None:
        pipeline, commands, long_from = self._next_pipeline()
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
                    reply = await self._answer(connection, request, is_long=at >= long_from)
                    if isinstance(reply, Exception):
                        self._handle_error(request, reply)
                    elif self._confirm is None:
                        self._handle_answer(request, reply)
                    else:
                        unconfirmed.append((request, reply))
                if self._confirm is not None and unconfirmed:
                    shortfall = await self._confirm(connection)
                    for request, reply in unconfirmed:
                        self._handle_answer(request, reply, shortfall)
            self._listener.retry_floor.record(asyncio.get_running_loop().time() - began)
        except Exception as error:  # noqa: BLE001 - every waiting request gets it
            await self._drop()
            self._lost([each for each in pipeline if each.queue is pipeline], error)
        except BaseException:
            await self._drop()  # a reply may still arrive, and nothing else must read it
            raise

    def _limit(self, pipeline: list[Request]) -> float:
        """How long to wait for replies: until the latest deadline in the pipeline.

        A request with an earlier deadline fails then by itself.
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
        """Whether it was answered or failed already; otherwise mark it as answered."""
        if request.queue is not self._pipeline:
            return True
        request.queue = None
        if request.timer is not None:
            request.cancel_timer()
        return False

    def _lost(self, left: list[Request], error: Exception) -> None:
        """The connection broke, or could not be opened, before these were answered."""
        # Whatever the error is, no request may wait forever.
        if not isinstance(error, server_errors.FAULTS):
            logger.error("a pipeline to %s failed", self.settings.place, exc_info=error)
        refused = server_errors.classify(error).verdict is Verdict.REFUSED
        for request in left:
            if refused and not self._sent:  # e.g. authentication failed
                self._handle_error(request, error)
            else:
                request.maybe_applied = request.maybe_applied or (self._sent and request.writes)
                request.breaks += self._sent and not isinstance(error, TimeoutError)
                request.queue = None
                request.cancel_timer()
                self._listener.lost(request, error)

    def _next_pipeline(self) -> tuple[list[Request], list[bytes], int]:
        """The requests of the next pipeline; the commands of those with a single command; and
        the index of the first one with several round trips.
        """
        group: list[Request] = []  # those with a single command; the others are added at the end
        long_requests: list[Request] = []
        commands: list[bytes] = []
        size = 0
        whole_sent = False
        while self._ready and len(group) < PIPELINE_REQUESTS_MAX and size < PIPELINE_BYTES_MAX:
            request = self._ready.popleft()
            if not self._dequeue(request):
                continue
            # If a node lost the script, the first refused request sends its text again; a request
            # that was refused twice also sends the text.
            whole = request.noscript_count > 1 or (request.noscript_count == 1 and not whole_sent)
            whole_sent = whole_sent or whole
            try:
                packed = request.packed(whole=whole)
            except Exception as error:
                logger.exception("a request cannot be packed")
                request.failed(request.misunderstood(error))
                continue
            if packed is None:
                long_requests.append(request)
                continue
            if request.ask_at is not None:
                commands.append(ASKING)
            commands.append(packed)
            size += len(packed)
            request.queue = group
            group.append(request)
        long_from = len(group)
        for request in long_requests:
            request.queue = group
        group += long_requests
        return group, commands, long_from

    def _dequeue(self, request: Request) -> bool:
        """Remove it from this queue; `False` if it failed or moved to another queue meanwhile."""
        if request.queue is not self:
            return False
        request.queue = None
        if request.timer is not None:
            request.cancel_timer()
        return True

    def _handle_error(self, request: Request, reply: Exception) -> None:
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

    def _handle_answer(
        self, request: Request, reply: object, shortfall: KVSError | None = None
    ) -> None:
        if self._is_answered(request):
            return
        try:
            request.answered(reply, shortfall)
        except Exception as error:
            logger.exception("unexpected reply from %s", self.settings.place)
            request.failed(request.misunderstood(error))

    def _redirected(self, error: AskError) -> Address:
        return host_of(error.host, self.address), error.port

    async def _answer(
        self, connection: RawConnection, request: Request, *, is_long: bool
    ) -> object:
        """The reply to a request, or the result of its round trips, or an error."""
        if not is_long:
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
