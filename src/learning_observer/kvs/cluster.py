"""One event loop's way to a Redis cluster.

Changes go to the writer of their slot, keys to read become a request each; either is routed to
the lane of the node that serves the slot, and leaves there with those of other slots. What a
node answers is repaired request by request: MOVED and ASK send this one elsewhere, TRYAGAIN and
the like try it again after a pause, a lost connection sends it again under the same number; all
until its own deadline. Slots of other nodes notice nothing.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Final

from redis.exceptions import ClusterDownError, TryAgainError

from learning_observer.kvs import answers
from learning_observer.kvs.answers import Verdict
from learning_observer.kvs.changes import Change, Outcome
from learning_observer.kvs.cluster_lane import Confirm, NodeLane
from learning_observer.kvs.cluster_map import ClusterMap
from learning_observer.kvs.cluster_requests import KeyRead, Request, SlotWriter
from learning_observer.kvs.cluster_slots import Address, slot_of
from learning_observer.kvs.errors import InvalidKey, Refused, shorten
from learning_observer.kvs.key_layout import cluster_name, cluster_pattern, key_of_cluster_name
from learning_observer.kvs.own_loop import OwnLoop
from learning_observer.kvs.wire import (
    ATTEMPT_MIN_S,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    RECORD_TTL_MIN_MS,
    Found,
    scan_strings,
)
from learning_observer.redis_connection import RedisConnection, RedisSettings

#: Commits to one node overlap in this many lanes; a slot always takes the same one.
LANES: Final = 2
#: So many redirections are followed at once; then the nodes get time to agree.
REDIRECTIONS_MAX: Final = 5
#: A key that is being moved is there soon, so it is not waited for as long as a server.
PAUSE_WHILE_MOVING_S: Final = 0.05
#: How often keys are listed again because slots moved meanwhile.
SCANS_MAX: Final = 5


def check_cluster_prefix(prefix: str) -> None:
    """`InvalidKey` for a prefix that would itself decide about the slots of all keys."""
    if "{" in prefix or "}" in prefix:
        raise InvalidKey(
            prefix,
            "braces in the `prefix` of a store on a cluster would put all its keys into one slot, "
            "or part those of one reducer; choose a prefix without braces",
        )


class ClusterTraffic(OwnLoop):
    """One event loop's way to a cluster: a writer for each slot, some lanes to each node.

    confirm  what each pipeline of commits waits for before it counts as done, see `NodeLane`
    """

    def __init__(
        self,
        where: RedisSettings,
        *,
        prefix: str,
        ttl_ms: int,
        confirm: Confirm | None = None,
    ) -> None:
        check_cluster_prefix(prefix)
        super().__init__()
        self._settings = where
        self._confirm = confirm
        self._prefix = prefix
        self._place_name = "the cluster of {}:{}".format(*where.seed_nodes()[0])
        self._writer = uuid.uuid4().hex
        self._ttls_ms = max(RECORD_TTL_MIN_MS, round(where.retry_for * 10_000)), ttl_ms
        self._map = ClusterMap(where, self._map_refreshed)
        self._nodes: dict[Address, RedisConnection] = {}
        self._lanes: dict[tuple[Address, int], NodeLane] = {}
        self._writers: dict[int, SlotWriter] = {}
        self._unplaced: dict[Request, None] = {}
        self._unanswered = 0
        self._all_answered: asyncio.Future[None] | None = None
        # Names and slots of keys that are used again and again.
        self._place = functools.lru_cache(16_384)(self._place_of)
        self.reader = _Reader(self)

    # -- what a store asks for ---------------------------------------------------------

    def submit(self, change: Change, done: Callable[[Outcome], object]) -> None:
        """Make `change` with the next call of its slot."""
        guard, expected, puts = change
        name, slot = self._place(guard)
        named: dict[str, bytes | None] = {}
        for key, data in puts.items():
            other, other_slot = self._place(key)
            if other_slot != slot:
                self._loop.call_soon(done, _parted(guard, key))
                return
            named[other] = data
        writer = self._writers.get(slot)
        if writer is None:
            writer = self._writers[slot] = SlotWriter(self, slot, self._writer, self._ttls_ms)
        writer.submit(Change(name, expected, named), done)

    def read(self, key: str, done: Callable[[Found], object]) -> None:
        """Read `key` with the next pipeline to its node."""
        name, slot = self._place(key)
        self.send(KeyRead(self, key, name.encode(), slot, done))

    async def names(self, key_prefix: str) -> AsyncIterator[bytes]:
        """Names of the keys that begin with `key_prefix`, of some others, some of them twice.

        Where slots move from one node to another meanwhile, all nodes are asked again.
        """
        pattern = cluster_pattern(self._prefix, key_prefix)
        await self._refresh_map()
        for _ in range(SCANS_MAX):
            version = self._map.version
            for address in self._map.primaries:
                async for name in scan_strings(self._node(address), pattern):
                    yield name
            await self._refresh_map()
            if self._map.version == version:
                return

    def key_of(self, name: bytes) -> str | None:
        """The key that has this name in Redis; `None`: the name is another program's."""
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        return key_of_cluster_name(text.removeprefix(self._prefix))

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

    def send(self, request: Request) -> None:
        """Send it, as a new request, to whichever node serves its slot."""
        request.begin(self._loop.time() + self._settings.retry_for)
        self._route(request)

    def read_name(self, name: bytes, slot: int, done: Callable[[Found], object]) -> None:
        """Read what is stored under a name."""
        self.send(KeyRead(self, self.key_of(name) or repr(name), name, slot, done))

    # -- what lanes tell -----------------------------------------------------------------

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
        self._again(request, error)

    # -- the ways of a request -------------------------------------------------------------

    def _place_of(self, key: str) -> tuple[str, int]:
        name = self._prefix + cluster_name(key)
        return name, slot_of(name.encode())

    def _route(self, request: Request) -> None:
        request.timer = None
        address = request.ask_at or self._map.address_of(request.slot)
        if address is None:
            self._unplaced[request] = None
            self._map.refresh_soon()
        else:
            lane = request.slot % LANES if request.writes else LANES
            self._lane(address, lane).add(request)
        if address is None or request.attempts:
            # While it waits for others it must not wait for longer than it may.
            request.timer = self._loop.call_at(request.deadline, self._expired, request)

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
        pause = PAUSE_MIN_S * 2.0 ** min(request.attempts, 10)
        pause = min(pause, pause_max) * random.uniform(0.5, 1.0)
        request.attempts += 1
        left = request.deadline - self._loop.time() - ATTEMPT_MIN_S
        if left < PAUSE_MIN_S:
            self._give_up(request)
        else:
            request.timer = self._loop.call_later(min(pause, left), self._route, request)

    def _expired(self, request: Request) -> None:
        request.timer = None
        request.queue = None
        self._unplaced.pop(request, None)
        self._give_up(request)

    def _give_up(self, request: Request) -> None:
        fault = request.fault or self._map.failure or _unserved(request.slot)
        error = answers.gave_up(
            self._place_name,
            fault,
            tried_s=self._settings.retry_for,
            tries=request.attempts,
            unknown=request.unsure,
        )
        error.__cause__ = fault
        request.failed(error)

    def _map_refreshed(self) -> None:
        unplaced, self._unplaced = self._unplaced, {}
        failure = self._map.failure
        for request in unplaced:
            request.rest()
            if self._map.address_of(request.slot) is not None:
                self._route(request)
            elif failure is not None and self._map.refused:
                request.failed(request.refused(self._place_name, failure))
            else:
                self._again(request, failure or _unserved(request.slot))

    # -- nodes ---------------------------------------------------------------------------

    def _node(self, address: Address) -> RedisConnection:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = RedisConnection(self._settings.at(*address))
        return node

    def _lane(self, address: Address, number: int) -> NodeLane:
        lane = self._lanes.get((address, number))
        if lane is None:
            confirm = None if number == LANES else self._confirm  # the last one only reads
            lane = NodeLane(self._node(address), address, self, confirm)
            self._lanes[address, number] = lane
        return lane

    async def _refresh_map(self) -> None:
        """Ask for the map until a node answers."""
        deadline = self._loop.time() + self._settings.retry_for
        for tries in itertools.count(1):
            try:
                async with asyncio.timeout_at(deadline):
                    await self._map.refresh()
                    return
            except answers.FAULTS as error:
                if answers.classify(error).verdict is Verdict.REFUSED:
                    raise answers.refused(self._place_name, error) from error
                if self._loop.time() + PAUSE_MAX_S >= deadline:
                    raise answers.gave_up(
                        self._place_name, error, tried_s=self._settings.retry_for, tries=tries
                    ) from error
            await asyncio.sleep(PAUSE_MAX_S * random.uniform(0.5, 1.0))


class _Reader:
    """Reads keys; the face that a single server's reader has."""

    def __init__(self, traffic: ClusterTraffic) -> None:
        self.submit = traffic.read


def _unserved(slot: int) -> Exception:
    return ClusterDownError(f"no node serves slot {slot}", status_code="CLUSTERDOWN")


def _parted(guard: str, key: str) -> Refused:
    return Refused(
        f"{shorten(guard)} and {shorten(key)} lie in different slots of the cluster, so one "
        "change cannot hold both. Nothing was written. Give keys that change together one hash "
        "tag, as in 'a{tag}' and 'b{tag}'; those of one reducer and entity share a slot anyway"
    )
