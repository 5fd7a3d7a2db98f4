"""The engine: reducers over states that are held in the process, committed in groups.

Events of one state are reduced in order; states never wait for each other. While a commit
of a state is under way its next events gather, and are then folded: reduced one after
another, written once. All changes that are ready leave with the store's next group.

Reducers run more than once on an event where another writer was faster, so they must be
functions of (event, state). One without an `await` runs at once, without a task of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterator
from threading import get_ident
from typing import Any, Final

from learning_observer.kvs.changes import check_key
from learning_observer.kvs.codec import Json
from learning_observer.kvs.errors import KVSError, WrongType
from learning_observer.kvs.own_loop import of_this_loop
from learning_observer.kvs.store import GROUP_KEYS_MAX, Store
from learning_observer.stream_analytics.batch import Batch, Part
from learning_observer.stream_analytics.cache import Cache
from learning_observer.stream_analytics.fold import Event, Reducer, StateKeys
from learning_observer.stream_analytics.held_state import HeldState, Keeper
from learning_observer.stream_analytics.limits import Limits
from learning_observer.stream_analytics.wakeups import Wakeups

#: So many states of a batch are reduced before the lanes may send what is ready.
STRIDE: Final = 256
#: How often the time is told to the events that come, in seconds.
TICK_S: Final = 0.05
#: A read that takes so long, in seconds, takes from the time of the commit after it.
SLOW_S: Final = 0.1
#: Looked up here once, and not with every event.
Future = asyncio.Future


class Place:
    """Where an event goes: a reducer, and the keys of the state that it belongs to.

    held  the state itself, as an engine held it the last time
    """

    __slots__ = ("held", "keys", "reducer")

    def __init__(self, reducer: Reducer, keys: StateKeys) -> None:
        self.reducer = reducer
        self.keys = keys
        self.held: HeldState | None = None

    def __iter__(self) -> Iterator[Any]:
        """The reducer and the keys."""
        return iter((self.reducer, self.keys))


class Engine(Keeper):
    """Runs the events of one event loop against one store."""

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        self.store = store
        self.loop = asyncio.get_running_loop()
        super().__init__(Wakeups(self.loop))
        limits = limits or Limits.from_settings()
        self._thread = get_ident()
        self._states: dict[Reducer, dict[StateKeys, HeldState]] = {}
        self._missing: list[HeldState] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._cache = Cache(limits.cache_bytes)  # of states that no event waits for
        # Events that were taken in and not answered yet, and who waits to bring more.
        self._waiting_events = 0
        self._waiting_events_max = limits.waiting_events
        self._in_vain = 0  # of the store's attempts, those that are known
        self._ticking = False
        self._callers: deque[asyncio.Future[None]] = deque()

    def process(self, reducer: Reducer, keys: StateKeys, event: Event) -> asyncio.Future[Json]:
        """Reduce `event` into the state at `keys`, and commit it. Await the result.

        It is the External state as of this event, the caller's own (`False` where the
        reducer wrote none). Raises what the reducer raised, `NotJSON` where it returned
        something else, or what befell the commit; the state is then as it was before, but
        for `OutcomeUnknown` and `NotReplicated`. A caller that is cancelled stops waiting: its
        event may still be applied. Call it from within a task.
        """
        return self.take(self.held(reducer, keys), event)

    def take(self, held: HeldState, event: Event) -> asyncio.Future[Json]:
        """`process` with a state that `held()` gave, and that is not forgotten."""
        answered: asyncio.Future[Json] = Future(loop=self.loop)
        if not self._ticking:
            self._begin_ticking()
        held.add(event, answered)
        self._waiting_events += 1
        if not held.running:
            self._wake(held)
        return answered

    def held(self, reducer: Reducer, keys: StateKeys) -> HeldState:
        """The state at `keys`, to be used until it is forgotten. `InvalidKey`, `StoreClosed`."""
        states = self._states.get(reducer)
        if states is None:
            states = self._states[reducer] = {}
        held = states.get(keys)
        if held is None:
            for key in keys:  # an event can bring text that can be no key
                check_key(key)
            held = HeldState(self, self.store.way(keys.internal), reducer, keys)
            states[keys] = held
        return held

    def take_part(self, place: Place, event: Event, at: int, rank: int, batch: Batch) -> None:
        """Take in the event `at` of a batch, for the state at `place`.

        rank  which of the event's reducers that is: of several errors the first one is told

        Events of one state keep their order and are folded together, once `run` is called.
        """
        held = place.held
        if held is None or held.forgotten or held.keeper is not self:
            try:
                held = place.held = self.held(place.reducer, place.keys)
            except KVSError as error:  # its key can be none
                batch.failed(at, rank, error)
                return
        part = held.part
        if part is None or part.batch is not batch:
            part = held.part = Part(batch)
            batch.expect(held)
        part.add(at, rank)
        if not self._ticking:
            self._begin_ticking()
        held.add(event, part)
        self._waiting_events += 1

    async def run(self, batch: Batch) -> None:
        """Reduce what has been taken in for the batch, and wait until it is all answered."""
        states = self.taken_in(batch)
        try:
            while len(states) > STRIDE:
                now, states = states[:STRIDE], states[STRIDE:]
                self.wake_all(now)
                await asyncio.sleep(0)  # what is ready leaves: the store works on it meanwhile
        finally:  # a caller that is cancelled leaves no event behind
            self.wake_all(states)
        if batch.left:
            await batch.complete(self.loop, self.wakeups)

    def taken_in(self, batch: Batch) -> list[HeldState]:
        """The states of a batch into which no event is taken in any more."""
        states, batch.states = batch.states, []
        for held in states:
            held.part = None
        return states

    def wake_all(self, states: list[HeldState]) -> None:
        """Have the states take their turn, those that do not have it already."""
        for held in states:
            if not held.running:
                self._wake(held)

    def is_here(self) -> bool:
        """Whether its event loop is the running one; see `is_here` of the Redis store."""
        return self._thread == get_ident() and self.loop.is_running()

    def is_full(self) -> bool:
        """Whether so many events wait that whoever brings another must await `room()`."""
        return self._waiting_events >= self._waiting_events_max or bool(self._callers)

    async def room(self) -> None:
        """Wait until there is room for an event; who came first goes first."""
        caller: asyncio.Future[None] = self.loop.create_future()
        self._callers.append(caller)
        self._let_in()
        try:
            await caller
        finally:
            if caller.done() and not caller.cancelled():  # its place was kept; now it comes
                self.answered(1)

    def answered(self, events: int) -> None:
        """So many events wait no more."""
        self._waiting_events -= events
        if self._callers:
            self._let_in()

    def _let_in(self) -> None:
        free = self._waiting_events_max - self._waiting_events
        while free > 0 and self._callers:
            caller = self._callers.popleft()
            if not caller.done():  # done: it was cancelled
                caller.set_result(None)
                self._waiting_events += 1  # kept for it until it comes
                free -= 1

    def rest(self, held: HeldState) -> None:
        """No event waits for the state: it goes into the cache, or is forgotten."""
        held.running = False
        if not held.known:
            self._forget(held)
            return
        held.measure(held.data)
        self._cache.put(held)
        oldest: Any = self._cache.surplus()
        while oldest is not None:
            self._forget(oldest)
            oldest = self._cache.surplus()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task of the engine's."""
        task = self.loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    def deadline(self, came: float) -> float | None:
        """Until when an event that came then is tried, if ever."""
        try:
            for_s = self.store.try_for_s()
        except KVSError:  # it was closed: who hands in a change is told
            return None
        return None if for_s is None else came + for_s

    def in_trouble(self) -> None:
        """The store has just been found not to answer."""
        self.now = self.troubled_at = self.loop.time()

    def _begin_ticking(self) -> None:
        # The time of each event would cost as much as to take it in.
        self._ticking = True
        self.now = self.loop.time()
        self._in_vain = self.store.in_vain()
        self.loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self.now = self.loop.time()
        in_vain = self.store.in_vain()
        if in_vain != self._in_vain:
            self._in_vain = in_vain
            self.troubled_at = self.now
        if self._waiting_events:
            self.loop.call_later(TICK_S, self._tick)
        else:
            self._ticking = False

    def _forget(self, held: HeldState) -> None:
        held.forgotten = True
        del self._states[held.reducer][held.keys]

    def _wake(self, held: HeldState) -> None:
        """The state's turn begins: at once, or when it has been read."""
        held.running = True
        if held.known:
            self._cache.take_out(held)
            held.advance()
            return
        if not self._missing:  # all that are missed until this task runs are read together
            self.spawn(self._fetch())
        self._missing.append(held)

    async def _fetch(self) -> None:
        missing, self._missing = self._missing, []
        for start in range(0, len(missing), GROUP_KEYS_MAX):
            await self._fetch_part(missing[start : start + GROUP_KEYS_MAX])

    async def _fetch_part(self, missing: list[HeldState]) -> None:
        began = self.loop.time()
        came = min(held.waiting[3] for held in missing)
        try:
            until = None if self.troubled_at < came else self.deadline(came)
            found = await self.store.read([held.keys.internal for held in missing], deadline=until)
        except WrongType as error:
            if len(missing) == 1:
                missing[0].fail(error)
                return
            for held in missing:  # one bad key must not fail the others
                await self._fetch_part([held])
            return
        except Exception as error:  # noqa: BLE001 - whatever it was, all who wait must know
            for held in missing:
                held.fail(error)
            return
        if self.loop.time() - began > SLOW_S:  # its commit has what is left of its time
            self.in_trouble()
        for held, data in zip(missing, found, strict=True):
            held.found(data)
            held.advance()


_engines: dict[asyncio.AbstractEventLoop, dict[Store, Engine]] = {}


def engine_of(store: Store, known: Engine | None) -> Engine:
    """`engine_for(store)`, where `known` is likely to be it."""
    if known is not None and known.store is store and known.is_here():
        return known
    return engine_for(store)


def engine_for(store: Store) -> Engine:
    """The engine of the running event loop for `store`: the same one each time."""
    engines = of_this_loop(_engines, dict[Store, Engine])
    engine = engines.get(store)
    if engine is None:
        engine = engines[store] = Engine(store)
    return engine
