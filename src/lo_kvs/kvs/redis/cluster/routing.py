"""The ways of requests to the nodes of a cluster, and what is done when one fails.

A request is routed to a lane of the node that serves its slot, and leaves there with those of
other slots. What a node answers is repaired request by request: MOVED and ASK send this one
elsewhere, TRYAGAIN and the like try it again after a pause, a lost connection sends it again,
all until its own deadline. Slots of other nodes notice nothing.
"""

from __future__ import annotations

import abc
import asyncio
import itertools
import random
from typing import Final

from redis.exceptions import ClusterDownError, TryAgainError

from lo_kvs.kvs.batching.deadlines import RetryBudget, Turn
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

#: So many redirections are followed at once; then the nodes get time to agree.
REDIRECTIONS_MAX: Final = 5
#: A key that is being moved is there soon, so it is not waited for as long as a server.
PAUSE_WHILE_MOVING_S: Final = 0.05


class RequestRouter(LoopBound, abc.ABC):
    """Brings requests to nodes: two lanes to each node, and the map that says which.

    try_for_s  how long a request is tried
    in_vain    how many attempts have been in vain
    """

    def __init__(self, where: RedisSettings, durability: Durability) -> None:
        super().__init__()
        self._settings = where
        self._durability = durability
        self.try_for_s = where.retry_for + durability.extra_s
        self.failed_attempts = 0
        self.turn = Turn()
        self._place_name = "the cluster of {}:{}".format(*where.seed_nodes()[0])
        self._map = Topology(where, self._map_refreshed, self._map_cancelled)
        self._nodes: dict[Address, RedisConnection] = {}
        # One lane for commits and one for reads: commits to several nodes overlap anyway, and
        # with more lanes to each of them pipelines are smaller and cost more.
        self._lanes: dict[tuple[Address, bool], NodePipeline] = {}
        self._unplaced: dict[Request, None] = {}
        self._trouble_until = 0.0  # what was tried in vain is tried again until then
        self._unanswered = 0
        self._all_answered: asyncio.Future[None] | None = None

    # -- what requests ask for -----------------------------------------------------------

    def begun(self) -> None:
        """There is one more that will be answered."""
        self._unanswered += 1

    def finished(self) -> None:
        """One of them has been answered."""
        self._unanswered -= 1
        complete = self._all_answered
        if not self._unanswered and complete is not None and not complete.done():
            complete.set_result(None)

    def send(self, request: Request, deadline: float | None = None) -> None:
        """Send it, as a new request, to whichever node serves its slot."""
        now = self._loop.time()
        until = now + self.try_for_s
        if deadline is None:
            request.begin(now, until)
            self._route(request)
            return
        request.begin(now, min(max(deadline, now + self.turn.s), until))
        self._route(request)
        if request.timer is None:  # what it waits for may have later deadlines
            request.timer = self._loop.call_at(request.deadline, self.expired, request)

    def unsent(self, request: Request) -> KVSError:
        """What those are told who waited behind a request until their time was up."""
        self.failed_attempts += 1
        waited_s = self._loop.time() - request.since
        return server_errors.overtaken(self._place_name, request.fault, waited_s=waited_s)

    async def aclose(self) -> None:
        """Wait until everything has been answered, then close all connections."""
        if self._unanswered:
            self._all_answered = self._loop.create_future()
            await self._all_answered
        await self._map.aclose()
        for lane in self._lanes.values():
            await lane.aclose()
        for node in self._nodes.values():
            await node.aclose()

    # -- what lanes tell -----------------------------------------------------------------

    @abc.abstractmethod
    def watch(self) -> None:
        """Something leaves, and may take long: see to those who wait for it."""

    def is_stuck(self, since: float) -> bool:
        """Whether anything has taken long since then, or is tried again."""
        return (
            bool(self._unplaced)
            or self._loop.time() < self._trouble_until
            or any(lane.is_stuck(since) for lane in self._lanes.values())
        )

    def moved(self, request: Request, to: Address, error: Exception) -> None:
        """Its slot is served by another node from now on."""
        self._map.move(request.slot, to)
        self._map.refresh_soon()  # a slot seldom moves alone
        self._redirect(request, None, error)

    def asked(self, request: Request, at: Address, error: Exception) -> None:
        """Its slot is moving there, and its keys are there already."""
        self._redirect(request, at, error)

    def not_now(self, request: Request, error: Exception) -> None:
        """Nothing was done, and waiting may help."""
        if isinstance(error, TryAgainError):
            self._again(request, error, pause_max=PAUSE_WHILE_MOVING_S)
        else:
            self._map.refresh_soon()  # perhaps another node serves it by now
            self._again(request, error)

    def lost(self, request: Request, error: Exception) -> None:
        """The connection broke before its answer came."""
        self._map.refresh_soon()
        if request.breaks_max is not None and request.breaks >= request.breaks_max:
            request.fault = error
            self._give_up(request)
        else:
            self._again(request, error)

    # -- the ways of a request -------------------------------------------------------------

    def _route(self, request: Request) -> None:
        request.timer = None
        address = request.ask_at or self._map.address_of(request.slot)
        if address is None:
            self._unplaced[request] = None
            self._map.refresh_soon()
            self.watch()
        else:
            self._lane(address, request.writes).add(request)
        if address is None or request.attempts:
            # While it waits for others it must not wait for longer than it may.
            request.timer = self._loop.call_at(request.deadline, self.expired, request)

    def _redirect(self, request: Request, ask_at: Address | None, error: Exception) -> None:
        request.attempts += 1
        request.ask_at = ask_at
        request.fault = error
        if request.attempts % REDIRECTIONS_MAX and self._loop.time() < request.deadline:
            self._route(request)
        else:  # the nodes do not agree yet
            self._again(request, TryAgainError(f"redirected: {error}", status_code="TRYAGAIN"))

    def _again(self, request: Request, error: Exception, pause_max: float = PAUSE_MAX_S) -> None:
        request.ask_at = None
        request.fault = error
        self.failed_attempts += 1
        self._trouble_until = max(self._trouble_until, request.deadline)
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
        fault = request.fault or self._map.failure or _unserved(request.slot)
        error = server_errors.gave_up(
            self._place_name,
            fault,
            tried_s=self._loop.time() - request.since,
            tries=max(1, request.attempts),
            unknown=request.maybe_applied,
        )
        error.__cause__ = fault
        request.failed(error)

    def _map_refreshed(self) -> None:
        unplaced, self._unplaced = self._unplaced, {}
        failure = self._map.failure
        for request in unplaced:
            request.cancel_timer()
            if self._map.address_of(request.slot) is not None:
                self._route(request)
            elif failure is not None and self._map.refused:
                request.failed(request.refused(self._place_name, failure))
            else:
                self._again(request, failure or _unserved(request.slot))

    def _map_cancelled(self, error: BaseException) -> None:
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

    def _lane(self, address: Address, writes: bool) -> NodePipeline:
        lane = self._lanes.get((address, writes))
        if lane is None:
            durability = self._durability if writes else NO_WAITING
            lane = NodePipeline(self._node(address), address, self, durability)
            self._lanes[address, writes] = lane
        return lane

    async def _refresh_map(self, budget: RetryBudget) -> None:
        """Ask for the map until a node answers."""
        with budget.part(lambda: self.failed_attempts) as deadline:
            await self._ask_for_map(deadline or self._loop.time() + self._settings.retry_for)

    async def _ask_for_map(self, deadline: float) -> None:
        start = self._loop.time()
        for tries in itertools.count(1):
            try:
                async with asyncio.timeout_at(deadline):
                    await self._map.refresh()
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
