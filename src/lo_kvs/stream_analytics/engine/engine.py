"""The engine: reducers over states that are held in the process, committed in groups.

Events of one state are reduced in order; states never wait for each other. While a commit
of a state is under way its next events gather, and are then folded: reduced one after
another, written once. All changes that are ready leave with the store's next group.

Reducers run more than once on an event where another writer was faster, so they must be
functions of (event, state). One without an `await` runs at once, without a task of its own.

What many states have to do at a time is done step by step, each step for all of them: callers
are woken, then reducers run, then changes are encoded and handed in. The code of all steps
together is larger than the processor's cache for code; that of one step is not.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from threading import get_ident
from typing import Any, Final

from lo_kvs import kvs
from lo_kvs.kvs import KVSRouter
from lo_kvs.kvs.backend import GROUP_KEYS_MAX
from lo_kvs.kvs.batching.deadlines import SLOW_S
from lo_kvs.kvs.changes import check_key
from lo_kvs.kvs.codec import Json
from lo_kvs.kvs.errors import KVSError, Unavailable, WrongType
from lo_kvs.kvs.loop_bound import of_this_loop
from lo_kvs.kvs.store import Store
from lo_kvs.kvs.tasks import start
from lo_kvs.stream_analytics.engine.backpressure import Backpressure
from lo_kvs.stream_analytics.engine.batch import Batch, BatchShare
from lo_kvs.stream_analytics.engine.cache import Cache
from lo_kvs.stream_analytics.engine.deadlines import EventDeadlines
from lo_kvs.stream_analytics.engine.event_queue import EngineBase
from lo_kvs.stream_analytics.engine.fold import Event, Reducer, StateKeys
from lo_kvs.stream_analytics.engine.state_slot import StateSlot
from lo_kvs.stream_analytics.engine.wakeups import Wakeups
from lo_kvs.stream_analytics.limits import Limits

#: So many states of a batch are reduced before the lanes may send what is ready.
STRIDE: Final = 256
#: The tasks that run now, by their event loops, where it takes long to ask asyncio for the loop.
_CURRENT: Final[dict[Any, Any]] = (
    getattr(asyncio.tasks, "_current_tasks", {}) if sys.version_info < (3, 12) else {}
)


class Place:
    """Where an event goes: a reducer, and the keys of the state that it belongs to.

    held  the state itself, as an engine held it the last time
    """

    __slots__ = ("keys", "reducer", "slot")

    def __init__(self, reducer: Reducer, keys: StateKeys) -> None:
        self.reducer = reducer
        self.keys = keys
        self.slot: StateSlot | None = None

    def __iter__(self) -> Iterator[Any]:
        """The reducer and the keys."""
        return iter((self.reducer, self.keys))


class Engine(EngineBase):
    """Runs the events of one event loop against one store."""

    def __init__(self, store: Store, limits: Limits | None = None) -> None:
        self.store = store
        self.loop = asyncio.get_running_loop()
        limits = limits or Limits.from_settings()
        self.backpressure = Backpressure(self.loop, limits.waiting_events)
        super().__init__(
            EventDeadlines(self.loop, store, self.backpressure, self.sweep),
            Wakeups(self.loop, self.advance_ready),
            limits.reducer_timeout,
        )
        self._thread = get_ident()
        self._states: dict[Reducer, dict[StateKeys, StateSlot]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._missing: list[StateSlot] = []
        self._ready: list[StateSlot] = []  # known, and with events that wait
        self._cache = Cache(limits.cache_bytes)  # of states that no event waits for

    def process(self, reducer: Reducer, keys: StateKeys, event: Event) -> asyncio.Future[Json]:
        """Reduce `event` into the state at `keys`, and commit it. Await the result.

        It is the External state as of this event, the caller's own (`False` where the
        reducer wrote none). Raises what the reducer raised, `NotJSON` where it returned
        something else, or what befell the commit; the state is then as it was before, but
        for `OutcomeUnknown` and `NotReplicated`. A caller that is cancelled stops waiting: its
        event may still be applied. Call it from within a task.
        """
        return self.submit(self.slot(reducer, keys), event)

    def submit(self, slot: StateSlot, event: Event) -> asyncio.Future[Json]:
        """`process` with a state that `slot()` gave, and that is not forgotten."""
        answered: asyncio.Future[Json] = self.wakeups.future()
        if not self.clock.ticking:
            self.clock.start()
        slot.add(event, answered)
        if len(slot.waiting) <= 4 * self.backpressure.share:
            self.backpressure.events += 1
        if not slot.running:
            self._wake(slot)
            if not self.wakeups.waking:  # else the others who are just woken come first
                self.advance_ready()
        return answered

    def slot(self, reducer: Reducer, keys: StateKeys) -> StateSlot:
        """The state at `keys`, to be used until it is evicted. `InvalidKey`, `StoreClosed`."""
        states = self._states.get(reducer)
        if states is None:
            states = self._states[reducer] = {}
        slot = states.get(keys)
        if slot is None:
            for key in keys:  # an event can bring text that can be no key
                check_key(key)
            slot = StateSlot(self, self.store.submitter_for(keys.internal), reducer, keys)
            states[keys] = slot
        return slot

    def submit_part(
        self, place: Place, event: Event, at: int, reducer_index: int, batch: Batch
    ) -> None:
        """Take in the event `at` of a batch, for the state at `place`.

        rank  which of the event's reducers that is: of several errors the first one is told

        Events of one state keep their order and are folded together, once `run` is called.
        """
        slot = place.slot
        if slot is None or slot.evicted or slot.engine is not self:
            try:
                slot = place.slot = self.slot(place.reducer, place.keys)
            except KVSError as error:  # its key can be none
                batch.failed(at, reducer_index, error)
                return
        part = slot.part
        if part is None or part.batch is not batch:
            part = slot.part = BatchShare(batch)
            batch.expect(slot)
        part.add(at, reducer_index)
        if not self.clock.ticking:
            self.clock.start()
        slot.add(event, part)
        if len(slot.waiting) <= 4 * self.backpressure.share:
            self.backpressure.events += 1

    async def run(self, batch: Batch) -> None:
        """Reduce what has been taken in for the batch, and wait until it is all answered."""
        states = self.taken_in(batch)
        try:
            while len(states) > STRIDE:
                now, states = states[:STRIDE], states[STRIDE:]
                self.wake_all(now)
                await asyncio.sleep(0)  # what is ready leaves: the store works on it meanwhile
        except BaseException:
            batch.stop()
            raise
        finally:  # the events of a caller that is cancelled are reduced all the same
            self.wake_all(states)
        if batch.left:
            await batch.complete(self.wakeups)

    def taken_in(self, batch: Batch) -> list[StateSlot]:
        """The states of a batch into which no event is taken in any more."""
        states, batch.states = batch.states, []
        for slot in states:
            slot.part = None
        return states

    def wake_all(self, states: list[StateSlot]) -> None:
        """Have the states take their turn, those that do not have it already."""
        for slot in states:
            if not slot.running:
                self._wake(slot)
        if not self.wakeups.waking:
            self.advance_ready()

    def advance_ready(self) -> None:
        """Run the reducers of all states that are ready, then write what they made."""
        ready, self._ready = self._ready, []
        folded: list[StateSlot] = []
        at = 0
        try:
            for at in range(len(ready)):
                slot = ready[at]
                if slot.fold_at_once():
                    folded.append(slot)
        except BaseException:  # the process is to end, and yet nobody is left waiting
            self._ready += ready[at + 1 :]
            self.loop.call_soon(self.advance_ready)
            raise
        finally:
            for slot in folded:
                slot.hand_in()

    def is_here(self) -> bool:
        """Whether its event loop is the one that runs the caller, a task.

        Another one may run inside it, in the same thread. To ask asyncio takes a system call on
        Python 3.11; where only one event loop runs a task, that is the answer.
        """
        if len(_CURRENT) == 1 and self.loop in _CURRENT and self._thread == get_ident():
            return True
        return _get_running_loop() is self.loop

    def answered(self, before: int, after: int) -> None:
        """A state had so many events that wait, and has so many now."""
        self.backpressure.changed(before, after)

    def sweep(self) -> None:
        """Free the places of events that were not begun, and whose callers were cancelled."""
        for states in self._states.values():
            for slot in states.values():
                if len(slot.waiting) > 4:
                    slot.sweep()

    def became_idle(self, slot: Any) -> None:
        """No event waits for the state: it goes into the cache, or is forgotten."""
        state: StateSlot = slot
        state.running = False
        if not state.known:
            self._forget(state)
            return
        state.measure(state.data)
        self._cache.put(state)
        oldest: Any = self._cache.surplus()
        while oldest is not None:
            self._forget(oldest)
            oldest = self._cache.surplus()

    def spawn(
        self, work: Coroutine[Any, Any, None], lost: Callable[[BaseException], object]
    ) -> None:
        """Run `work` in a task of the engine's. Where that ends before its work is done, call
        `lost(error)`: a task that is cancelled before its first step runs nothing itself.
        """
        task = start(work, partial(_settle, lost))
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    def end_process(self, error: BaseException) -> None:
        """Raise `error` out of the event loop, and not here: the store, or a caller whose turn it
        is, would not finish what it is doing for others.
        """
        self.loop.call_soon(_raise, error)

    def _forget(self, slot: StateSlot) -> None:
        slot.let_go()
        del self._states[slot.reducer][slot.keys]

    def _wake(self, slot: StateSlot) -> None:
        """The state's turn begins: it is ready, or will be when it has been read."""
        slot.running = True
        if slot.known:
            self._cache.take_out(slot)
            self._ready.append(slot)
            return
        if not self._missing:  # all that are missed until this task runs are read together
            missing: list[StateSlot] = []
            self._missing = missing
            self.spawn(self._fetch(missing), partial(self._fail_missing, missing))
        self._missing.append(slot)

    async def _fetch(self, missing: list[StateSlot]) -> None:
        """Read the states that are missing. `missing` keeps those that are not read yet."""
        self._missing = []
        alone = 0  # so many of them are read one by one
        while missing:
            part = missing[: 1 if alone else GROUP_KEYS_MAX]
            alone = max(alone - 1, 0)
            began = self.loop.time()
            came = min(slot.waiting[3] for slot in part)
            try:
                until = None if self.clock.unavailable_since < came else self.clock.deadline(came)
                found = await self.store.read([slot.keys.internal for slot in part], deadline=until)
            except Exception as error:  # noqa: BLE001 - whatever it was, all who wait must know
                if isinstance(error, WrongType) and len(part) > 1:
                    alone = len(part)  # one bad key must not fail the others
                    continue
                del missing[: len(part)]
                _fail_all(part, error)
                continue
            if self.loop.time() - began > SLOW_S:  # its commit has what is left of its time
                self.clock.in_trouble()
            for slot, data in zip(part, found, strict=True):
                slot.found(data)
            del missing[: len(part)]
            self._ready += part
            self.advance_ready()

    def _fail_missing(self, missing: list[StateSlot], error: BaseException) -> None:
        if self._missing is missing:  # the task was cancelled before its first step
            self._missing = []
        _fail_all(missing, error)


def _raise(error: BaseException) -> None:
    raise error


def _settle(lost: Callable[[BaseException], object], error: BaseException) -> None:
    """Call `lost` with what those who wait for a task's work get, where `error` ended it."""
    if isinstance(error, Exception):
        lost(error)
        return
    cancelled = isinstance(error, asyncio.CancelledError)
    why = "was cancelled" if cancelled else f"ended with {type(error).__name__}"
    answer = Unavailable(f"the task of this event {why}; nothing was written")
    answer.__cause__ = error
    lost(answer)


def _fail_all(states: list[StateSlot], error: BaseException) -> None:
    """Answer all that wait for these states with `error`."""
    for slot in states:
        slot.fail(error)


_engines: dict[asyncio.AbstractEventLoop, dict[Store, Engine]] = {}


def default_store() -> Store:
    """What `KVS()` returns: most routers know it, which spares a call for each event."""
    router = kvs.KVS
    store = router._default if type(router) is KVSRouter else None
    return router() if store is None else store


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
        for closed in [each for each in engines if each._closed]:
            del engines[closed]  # with all the states that it holds
        engine = engines[store] = Engine(store)
    return engine
