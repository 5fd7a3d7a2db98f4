"""RequestRouter: sends requests to the nodes of a cluster and handles redirections and failures.

A request goes to a pipeline of the node that serves its slot, together with requests of other
slots. Errors are handled per request, until its deadline: MOVED and ASK redirect it, TRYAGAIN
and similar errors retry it after a pause, a lost connection resends it. Requests to other nodes
are not affected.
"""

from __future__ import annotations

import abc
import asyncio
import itertools
import random
from typing import Final

from redis.exceptions import ClusterDownError, TryAgainError

from lo_kvs.kvs.batching.deadlines import RetryBudget, RetryFloor
from lo_kvs.kvs.errors import KVSError
from lo_kvs.kvs.loop_bound import LoopBound
from lo_kvs.kvs.redis.cluster.node_pipeline import NodePipeline
from lo_kvs.kvs.redis.cluster.requests import Request
from lo_kvs.kvs.redis.cluster.slots import Address
from lo_kvs.kvs.redis.cluster.topology import Topology
from lo_kvs.kvs.redis.durability import NO_WAITING, Durability
from lo_kvs.kvs.redis.protocol import server_errors
from lo_kvs.kvs.redis.protocol.server_errors import Verdict
from lo_kvs.kvs.redis.server.connection import ATTEMPT_MIN_S, PAUSE_MAX_S, PAUSE_MIN_S
from lo_kvs.redis_connection import RedisConnection, RedisSettings

#: Follow this many redirections without a pause; then give the nodes time to agree.
REDIRECTIONS_MAX: Final = 5
#: The longest pause while a key is being moved: that is faster than the restart of a server.
PAUSE_WHILE_MOVING_S: Final = 0.05


class RequestRouter(LoopBound, abc.ABC):
    """Sends requests to nodes: the topology of the cluster, and two pipelines per node.

    try_for_s        how long a request is retried
    failed_attempts  the number of failed attempts so far
    """

    def __init__(self, where: RedisSettings, durability: Durability) -> None:
        super().__init__()
        self._settings = where
        self._durability = durability
        self.try_for_s = where.retry_for + durability.extra_s
        self.failed_attempts = 0
        self.retry_floor = RetryFloor()
        self._place_name = "the cluster of {}:{}".format(*where.seed_nodes()[0])
        self._topology = Topology(where, self._topology_refreshed, self._topology_cancelled)
        self._nodes: dict[Address, RedisConnection] = {}
        # One pipeline for commits and one for reads: commits to several nodes already overlap,
        # and with more connections per node the pipelines would be smaller and cost more.
        self._pipelines: dict[tuple[Address, bool], NodePipeline] = {}
        self._unplaced: dict[Request, None] = {}
        self._retrying_until = 0.0  # until when requests with failed attempts are retried
        self._unanswered = 0
        self._all_answered: asyncio.Future[None] | None = None

    # -- for requests --------------------------------------------------------------------

    def begun(self) -> None:
        """Count a request that will be answered."""
        self._unanswered += 1

    def finished(self) -> None:
        """A request has been answered."""
        self._unanswered -= 1
        complete = self._all_answered
        if not self._unanswered and complete is not None and not complete.done():
            complete.set_result(None)

    def send(self, request: Request, deadline: float | None = None) -> None:
        """Send it as a new request to the node that serves its slot."""
        now = self._loop.time()
        until = now + self.try_for_s
        if deadline is None:
            request.begin(now, until)
            self._route(request)
            return
        request.begin(now, min(max(deadline, now + self.retry_floor.seconds), until))
        self._route(request)
        if request.timer is None:  # the requests before it may have later deadlines
            request.timer = self._loop.call_at(request.deadline, self.expired, request)

    def unsent(self, request: Request) -> KVSError:
        """The error for changes whose deadline passed while they were queued behind `request`."""
        self.failed_attempts += 1
        waited_s = self._loop.time() - request.since
        return server_errors.overtaken(self._place_name, request.fault, waited_s=waited_s)

    async def aclose(self) -> None:
        """Wait until all requests are answered, then close all connections."""
        if self._unanswered:
            self._all_answered = self._loop.create_future()
            await self._all_answered
        await self._topology.aclose()
        for pipeline in self._pipelines.values():
            await pipeline.aclose()
        for node in self._nodes.values():
            await node.aclose()

    # -- callbacks of the pipelines ------------------------------------------------------

    @abc.abstractmethod
    def watch(self) -> None:
        """A pipeline is being sent: check for overdue changes from now on."""

    def is_stuck(self, since: float) -> bool:
        """Whether a request sent before `since` is unanswered, or any request is being retried."""
        return (
            bool(self._unplaced)
            or self._loop.time() < self._retrying_until
            or any(pipeline.is_stuck(since) for pipeline in self._pipelines.values())
        )

    def moved(self, request: Request, to: Address, error: Exception) -> None:
        """MOVED: another node serves its slot from now on."""
        self._topology.move(request.slot, to)
        self._topology.refresh_soon()  # slots rarely move alone
        self._redirect(request, None, error)

    def asked(self, request: Request, at: Address, error: Exception) -> None:
        """ASK: its slot is moving to `at`, and its keys are already there."""
        self._redirect(request, at, error)

    def not_now(self, request: Request, error: Exception) -> None:
        """It was not executed, and a retry may help."""
        if isinstance(error, TryAgainError):
            self._retry(request, error, pause_max=PAUSE_WHILE_MOVING_S)
        else:
            self._topology.refresh_soon()  # another node may serve it now
            self._retry(request, error)

    def lost(self, request: Request, error: Exception) -> None:
        """The connection broke before it was answered."""
        self._topology.refresh_soon()
        if request.breaks_max is not None and request.breaks >= request.breaks_max:
            request.fault = error
            self._give_up(request)
        else:
            self._retry(request, error)

    # -- sending and retrying --------------------------------------------------------------

    def _route(self, request: Request) -> None:
        request.timer = None
        address = request.ask_at or self._topology.address_of(request.slot)
        if address is None:
            self._unplaced[request] = None
            self._topology.refresh_soon()
            self.watch()
        else:
            self._pipeline_to(address, request.writes).add(request)
        if address is None or request.attempts:
            # It may be queued behind other requests for longer than its deadline.
            request.timer = self._loop.call_at(request.deadline, self.expired, request)

    def _redirect(self, request: Request, ask_at: Address | None, error: Exception) -> None:
        request.attempts += 1
        request.ask_at = ask_at
        request.fault = error
        if request.attempts % REDIRECTIONS_MAX and self._loop.time() < request.deadline:
            self._route(request)
        else:  # the nodes do not agree yet
            self._retry(request, TryAgainError(f"redirected: {error}", status_code="TRYAGAIN"))

    def _retry(self, request: Request, error: Exception, pause_max: float = PAUSE_MAX_S) -> None:
        request.ask_at = None
        request.fault = error
        self.failed_attempts += 1
        self._retrying_until = max(self._retrying_until, request.deadline)
        pause = PAUSE_MIN_S * 2.0 ** min(request.attempts, 10)
        pause = min(pause, pause_max) * random.uniform(0.5, 1.0)
        request.attempts += 1
        left = request.deadline - self._loop.time() - ATTEMPT_MIN_S
        if left < PAUSE_MIN_S:
            self._give_up(request)
        else:
            request.timer = self._loop.call_later(min(pause, left), self._route, request)

    def expired(self, request: Request) -> None:
        """Its deadline has passed."""
        request.cancel_timer()
        request.queue = None
        self._unplaced.pop(request, None)
        self._give_up(request)

    def _give_up(self, request: Request) -> None:
        self.failed_attempts += 1
        fault = request.fault or self._topology.failure or _unserved(request.slot)
        error = server_errors.gave_up(
            self._place_name,
            fault,
            tried_s=self._loop.time() - request.since,
            tries=max(1, request.attempts),
            unknown=request.maybe_applied,
        )
        error.__cause__ = fault
        request.failed(error)

    def _topology_refreshed(self) -> None:
        unplaced, self._unplaced = self._unplaced, {}
        failure = self._topology.failure
        for request in unplaced:
            request.cancel_timer()
            if self._topology.address_of(request.slot) is not None:
                self._route(request)
            elif failure is not None and self._topology.refused:
                request.failed(request.refused(self._place_name, failure))
            else:
                self._retry(request, failure or _unserved(request.slot))

    def _topology_cancelled(self, error: BaseException) -> None:
        unplaced, self._unplaced = self._unplaced, {}
        for request in unplaced:
            request.cancel_timer()
            request.abandoned(self._place_name, error)

    # -- nodes ---------------------------------------------------------------------------

    def _node(self, address: Address) -> RedisConnection:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = RedisConnection(self._settings.at(*address))
        return node

    def _pipeline_to(self, address: Address, writes: bool) -> NodePipeline:
        pipeline = self._pipelines.get((address, writes))
        if pipeline is None:
            durability = self._durability if writes else NO_WAITING
            pipeline = NodePipeline(self._node(address), address, self, durability)
            self._pipelines[address, writes] = pipeline
        return pipeline

    async def _refresh_topology(self, budget: RetryBudget) -> None:
        """Load the topology; retry until a node answers."""
        with budget.step(lambda: self.failed_attempts) as deadline:
            await self._load_topology(deadline or self._loop.time() + self._settings.retry_for)

    async def _load_topology(self, deadline: float) -> None:
        start = self._loop.time()
        for tries in itertools.count(1):
            try:
                async with asyncio.timeout_at(deadline):
                    await self._topology.refresh()
                    return
            except server_errors.FAULTS as error:
                if server_errors.classify(error).verdict is Verdict.REFUSED:
                    raise server_errors.refused(self._place_name, error) from error
                now = self._loop.time()
                left = deadline - now - ATTEMPT_MIN_S
                if left < PAUSE_MIN_S:
                    raise server_errors.gave_up(
                        self._place_name, error, tried_s=now - start, tries=tries
                    ) from error
            self.failed_attempts += 1
            await asyncio.sleep(min(PAUSE_MAX_S * random.uniform(0.5, 1.0), left))


def _unserved(slot: int) -> Exception:
    return ClusterDownError(f"no node serves slot {slot}", status_code="CLUSTERDOWN")
