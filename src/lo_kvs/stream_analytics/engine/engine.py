"""The engine: runs reducers on states cached in the process, and commits the results in groups.

Events of one state are reduced in order; states never wait for each other. While a state is
being committed, its new events queue up. They are then folded: reduced one after another and
written once. All changes that are ready go out with the store's next group.

A reducer runs again on the same event if another writer changed the state first, so it must be
a function of (event, state). A reducer without an `await` runs immediately, without a task.

Work on many states is done in phases, each phase for all states: wake callers, run reducers,
then encode and submit changes. The code of all phases together does not fit into the
processor's instruction cache; the code of one phase does.
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

#: How many states of a batch are reduced before the store may send the changes that are ready.
STATES_PER_STEP: Final = 256
#: The current task of each event loop, for Pythons where asking asyncio for the loop is slow.
_CURRENT: Final[dict[Any, Any]] = (
    getattr(asyncio.tasks, "_current_tasks", {}) if sys.version_info < (3, 12) else {}
)


class Target:
    """What an event is applied to: a reducer, and the keys of one of its states.

    slot  the state's slot in the engine that used it last
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
        self._ready: list[StateSlot] = []  # their data is known, and events are queued
        self._cache = Cache(limits.cache_bytes)  # states without queued events

    def process(self, reducer: Reducer, keys: StateKeys, event: Event) -> asyncio.Future[Json]:
        """Reduce `event` into the state at `keys`, and commit it. Await the result.

        The result is the External state as of this event, a copy for the caller (`False` if
        the reducer wrote none). Raises the reducer's exception, `NotJSON` if the reducer
        returned something that is not JSON, or the commit's error. The state is then unchanged,
        except after `OutcomeUnknown` and `NotReplicated`. A cancelled caller stops waiting, but
        its event may still be applied. Call it from within a task.
        """
        return self.submit(self.slot(reducer, keys), event)

    def submit(self, slot: StateSlot, event: Event) -> asyncio.Future[Json]:
        """`process` for a slot that `slot()` returned and that is not evicted."""
        answered: asyncio.Future[Json] = self.wakeups.future()
        if not self.deadlines.ticking:
            self.deadlines.start()
        slot.add(event, answered)
        if len(slot.waiting) <= 4 * self.backpressure.share:
            self.backpressure.events += 1
        if not slot.running:
            self._wake(slot)
            if not self.wakeups.waking:  # otherwise wake the remaining callers first
                self.advance_ready()
        return answered

    def slot(self, reducer: Reducer, keys: StateKeys) -> StateSlot:
        """The slot of the state at `keys`, valid until it is evicted.

        Raises `InvalidKey` and `StoreClosed`.
        """
        states = self._states.get(reducer)
        if states is None:
            states = self._states[reducer] = {}
        slot = states.get(keys)
        if slot is None:
            for key in keys:  # an event can contain text that is not valid in a key
                check_key(key)
            slot = StateSlot(self, self.store.submitter_for(keys.internal), reducer, keys)
            states[keys] = slot
        return slot

    def submit_to_batch(
        self, target: Target, event: Event, at: int, reducer_index: int, batch: Batch
    ) -> None:
        """Queue the event `at` of a batch for `target`.

        reducer_index  the reducer's position among the event's reducers: if several fail, the
                       error of the first one is reported

        Events of one state keep their order and are folded together once `run` is called.
        """
        slot = target.slot
        if slot is None or slot.evicted or slot.engine is not self:
            try:
                slot = target.slot = self.slot(target.reducer, target.keys)
            except KVSError as error:  # for instance an invalid key
                batch.failed(at, reducer_index, error)
                return
        share = slot.share
        if share is None or share.batch is not batch:
            share = slot.share = BatchShare(batch)
            batch.expect(slot)
        share.add(at, reducer_index)
        if not self.deadlines.ticking:
            self.deadlines.start()
        slot.add(event, share)
        if len(slot.waiting) <= 4 * self.backpressure.share:
            self.backpressure.events += 1

    async def run(self, batch: Batch) -> None:
        """Reduce the queued events of the batch, and wait until all of them are done."""
        states = self.take_states(batch)
        try:
            while len(states) > STATES_PER_STEP:
                now, states = states[:STATES_PER_STEP], states[STATES_PER_STEP:]
                self.wake_all(now)
                await asyncio.sleep(0)  # send what is ready: the store works on it meanwhile
        except BaseException:
            batch.stop()
            raise
        finally:  # the events of a cancelled caller are reduced as well
            self.wake_all(states)
        if batch.left:
            await batch.complete(self.wakeups)

    def take_states(self, batch: Batch) -> list[StateSlot]:
        """Close the batch for further events, and return the states it queued events for."""
        states, batch.states = batch.states, []
        for slot in states:
            slot.share = None
        return states

    def wake_all(self, states: list[StateSlot]) -> None:
        """Start processing the queued events of these states, unless it is under way."""
        for slot in states:
            if not slot.running:
                self._wake(slot)
        if not self.wakeups.waking:
            self.advance_ready()

    def advance_ready(self) -> None:
        """Run the reducers of all states that are ready, then submit their changes."""
        ready, self._ready = self._ready, []
        folded: list[StateSlot] = []
        at = 0
        try:
            for at in range(len(ready)):
                slot = ready[at]
                if slot.fold_at_once():
                    folded.append(slot)
        except BaseException:  # the process is about to end; other callers still get a result
            self._ready += ready[at + 1 :]
            self.loop.call_soon(self.advance_ready)
            raise
        finally:
            for slot in folded:
                slot.submit_change()

    def is_here(self) -> bool:
        """Whether the caller, a task, runs in this engine's event loop.

        Another loop may run nested in the same thread. Asking asyncio takes a system call on
        Python 3.11. If only one event loop runs a task, no call is needed.
        """
        if len(_CURRENT) == 1 and self.loop in _CURRENT and self._thread == get_ident():
            return True
        return _get_running_loop() is self.loop

    def answered(self, before: int, after: int) -> None:
        """The number of queued events of one state changed from `before` to `after`."""
        self.backpressure.changed(before, after)

    def sweep(self) -> None:
        """Drop queued events that were not started and whose callers were cancelled."""
        for states in self._states.values():
            for slot in states.values():
                if len(slot.waiting) > 4:
                    slot.sweep()

    def became_idle(self, slot: Any) -> None:
        """The state has no queued events: put it into the cache, or evict it."""
        state: StateSlot = slot
        state.running = False
        if not state.known:
            self._evict(state)
            return
        state.measure(state.data)
        self._cache.put(state)
        oldest: Any = self._cache.surplus()
        while oldest is not None:
            self._evict(oldest)
            oldest = self._cache.surplus()

    def spawn(
        self, work: Coroutine[Any, Any, None], on_failure: Callable[[BaseException], object]
    ) -> None:
        """Run `work` in a task of this engine. If the task ends early, call `on_failure(error)`.

        A task that is cancelled before its first step cannot report that itself.
        """
        task = start(work, partial(_report_failure, on_failure))
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    def end_process(self, error: BaseException) -> None:
        """Raise `error` from the event loop, not here.

        Raised here, it would interrupt work that the store or a caller does for others.
        """
        self.loop.call_soon(_raise, error)

    def _evict(self, slot: StateSlot) -> None:
        slot.evict()
        del self._states[slot.reducer][slot.keys]

    def _wake(self, slot: StateSlot) -> None:
        """Start processing the state's events: now if its data is known, else once it is read."""
        slot.running = True
        if slot.known:
            self._cache.take_out(slot)
            self._ready.append(slot)
            return
        if not self._missing:  # all states that are missing until this task runs are read together
            missing: list[StateSlot] = []
            self._missing = missing
            self.spawn(self._fetch(missing), partial(self._fail_missing, missing))
        self._missing.append(slot)

    async def _fetch(self, missing: list[StateSlot]) -> None:
        """Read the states in `missing`. The list keeps those that are not read yet."""
        self._missing = []
        alone = 0  # how many of them are read one by one
        while missing:
            part = missing[: 1 if alone else GROUP_KEYS_MAX]
            alone = max(alone - 1, 0)
            began = self.loop.time()
            submitted_at = min(slot.waiting[3] for slot in part)
            try:
                until = (
                    None
                    if self.deadlines.unavailable_since < submitted_at
                    else self.deadlines.deadline(submitted_at)
                )
                found = await self.store.read([slot.keys.internal for slot in part], deadline=until)
            except Exception as error:  # noqa: BLE001 - every waiting caller gets the error
                if isinstance(error, WrongType) and len(part) > 1:
                    alone = len(part)  # one bad key must not fail the others
                    continue
                del missing[: len(part)]
                _fail_all(part, error)
                continue
            if self.loop.time() - began > SLOW_S:  # the commit gets the time that is left
                self.deadlines.mark_unavailable()
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


def _report_failure(on_failure: Callable[[BaseException], object], error: BaseException) -> None:
    """Pass `on_failure` the error for the callers of a task that `error` ended."""
    if isinstance(error, Exception):
        on_failure(error)
        return
    cancelled = isinstance(error, asyncio.CancelledError)
    why = "was cancelled" if cancelled else f"ended with {type(error).__name__}"
    answer = Unavailable(f"the task of this event {why}; nothing was written")
    answer.__cause__ = error
    on_failure(answer)


def _fail_all(states: list[StateSlot], error: BaseException) -> None:
    """Fail all queued events of these states with `error`."""
    for slot in states:
        slot.fail(error)


_engines: dict[asyncio.AbstractEventLoop, dict[Store, Engine]] = {}


def default_store() -> Store:
    """The store that `KVS()` returns. Usually the router has it, which saves a call per event."""
    router = kvs.KVS
    store = router._default if type(router) is KVSRouter else None
    return router() if store is None else store


def engine_of(store: Store, known: Engine | None) -> Engine:
    """`engine_for(store)`, fast if it is `known`."""
    if known is not None and known.store is store and known.is_here():
        return known
    return engine_for(store)


def engine_for(store: Store) -> Engine:
    """The engine of the running event loop for `store`: the same one each time."""
    engines = of_this_loop(_engines, dict[Store, Engine])
    engine = engines.get(store)
    if engine is None:
        for closed in [each for each in engines if each._closed]:
            del engines[closed]  # with all its cached states
        engine = engines[store] = Engine(store)
    return engine
