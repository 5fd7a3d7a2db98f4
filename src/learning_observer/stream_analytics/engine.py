"""The engine: reducers over states that are held in the process, committed in groups.

Events of one state are reduced in order; states never wait for each other. While a commit
of a state is under way its next events gather, and are then folded: reduced one after
another, written once. All changes that are ready leave with the store's next group.

Reducers run more than once on an event where another writer was faster, so they must be
functions of (event, state). One without an `await` runs at once, without a task of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeAlias

from learning_observer.kvs.codec import Json
from learning_observer.kvs.errors import KVSError, WrongType
from learning_observer.kvs.store import GROUP_KEYS_MAX, Conflict, Outcome, Store, check_key
from learning_observer.stream_analytics.fold import UNREAD, Event, Fold, Reducer, StateKeys

#: States that no event waits for are kept up to this many bytes.
CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
#: What a state takes besides its text and its members: its keys, its entries in tables.
#: Measured as growth of the process (CPython 3.11, 60,000 states), as is the next figure.
STATE_BYTES: Final = 1400
#: What a member of an object or a list takes when it has been read, besides its text.
MEMBER_BYTES: Final = 140
#: Events folded into one commit at most, so that the first of them is answered soon.
FOLD_EVENTS_MAX: Final = 256


class Failed:
    """Stands among the answers for what went wrong with an event."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Batch:
    """Many events that are taken in together, for a caller who waits for them all.

    errors  for each event `None`, or the error of the first of its reducers that failed
    """

    __slots__ = ("_complete", "_left", "_ranks", "errors")

    def __init__(self, events: int) -> None:
        self.errors: list[BaseException | None] = [None] * events
        self._ranks: dict[int, int] = {}  # which of its reducers an event's error is of
        self._left = 0
        self._complete: asyncio.Future[None] | None = None

    def failed(self, at: int, rank: int, error: BaseException) -> None:
        """The event `at` failed in its reducer number `rank`."""
        if self.errors[at] is None or rank < self._ranks.get(at, rank):
            self.errors[at] = error
            self._ranks[at] = rank

    def expect(self) -> None:
        """One answer more is to come."""
        self._left += 1

    def answer(self) -> None:
        """One of the answers has come."""
        self._left -= 1
        complete = self._complete
        if not self._left and complete is not None and not complete.done():
            complete.set_result(None)  # done already: the caller was cancelled

    async def complete(self) -> None:
        """Wait until every answer has come."""
        if self._left:
            self._complete = asyncio.get_running_loop().create_future()
            await self._complete


class Part:
    """The events of a batch that wait for one state: their places in it, their ranks."""

    __slots__ = ("answers", "batch", "places", "ranks")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.places: list[int] = []
        self.ranks: list[int] = []
        self.answers = 0

    def answer(self, error: BaseException | None) -> None:
        """The next of the events, in their order, is answered."""
        if error is not None:
            self.batch.failed(self.places[self.answers], self.ranks[self.answers], error)
        self.answers += 1
        if self.answers == len(self.places):  # the batch counts states, not events
            self.batch.answer()


#: Who waits for an event: a caller of `process`, or a part of a batch.
Answered: TypeAlias = "asyncio.Future[Json] | Part"


class HeldState:
    """One state of one reducer in this process, and the events that wait for it.

    events, answered  the events that wait, and who waits for each of their answers
    running           whether the state is being read, reduced or committed
    known, data       whether the text is what was last seen in the store, and that text
    fresh             whether it was seen there in this turn
    state             what `data` says, as an object that nobody else holds, or UNREAD
    size              the bytes that are counted against the cache
    """

    __slots__ = (
        "_answers",
        "_engine",
        "_fold",
        "_when_committed",
        "answered",
        "data",
        "events",
        "fresh",
        "keys",
        "known",
        "reducer",
        "running",
        "size",
        "state",
    )

    def __init__(self, engine: Engine, reducer: Reducer, keys: StateKeys) -> None:
        self._engine = engine
        self._fold = Fold(reducer, keys)
        self._answers: list[Any] = []
        self._when_committed = self.committed  # bound once, not at every commit
        self.keys = keys
        self.reducer = reducer
        self.events: list[Event] = []
        self.answered: list[Answered] = []
        self.running = False
        self.known = False
        self.fresh = False
        self.data: bytes | None = None
        self.state: Any = UNREAD
        self.size = 0

    def found(self, data: bytes | None) -> None:
        """The store holds `data`."""
        self.known = self.fresh = True
        self.data, self.state = data, UNREAD

    def advance(self) -> None:
        """Fold what waits, at once where the reducer never awaits, and hand in the change."""
        if self.reducer.awaits:
            self._engine.spawn(self._fold_in_task())
        else:
            self._fold_at_once()
            self._hand_in()

    def committed(self, outcome: Outcome) -> None:
        """The change that was handed in has this outcome."""
        self.fresh = False
        if outcome is None:
            self.data, self.state = self._fold.data, self._fold.state
        elif isinstance(outcome, Conflict):
            # Somebody else was faster: the same events again, on what stands there now.
            self.found(outcome.current)
            self.advance()
            return
        else:
            self.known = False
            lost = Failed(outcome)
            self._answers = [
                answer if isinstance(answer, Failed) else lost for answer in self._answers
            ]
        self._answer()
        self._go_on()

    def fail(self, error: BaseException) -> None:
        """Answer every event that waits with `error`; nothing was written for them."""
        self.known = False
        self._answers = [Failed(error)] * len(self.events)
        self._answer()
        self._engine.rest(self)

    def _fold_at_once(self) -> None:
        """Fold what waits, in whatever task this is: the reducer has no `await`."""
        fold, answers, function = self._fold, self._answers, self.reducer.function
        fold.begin(self.data, self.state)
        answers.clear()
        for event, answered in zip(self.events[:FOLD_EVENTS_MAX], self.answered, strict=False):
            try:
                running: Any = function(event, fold.next_state())
                running.send(None)
            except StopIteration as finished:
                try:
                    answers.append(fold.take(finished.value, type(answered) is not Part))
                except Exception as error:  # noqa: BLE001 - the event's own, told to its caller
                    answers.append(Failed(error))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - likewise
                answers.append(Failed(error))
            except BaseException as error:  # the process is to end
                self.fail(error)
                raise

    async def _fold_in_task(self) -> None:
        fold, answers = self._fold, self._answers
        try:
            fold.begin(self.data, self.state)
            answers.clear()
            waiting = list(zip(self.events[:FOLD_EVENTS_MAX], self.answered, strict=False))
            for event, answered in waiting:
                try:
                    result = await self.reducer.function(event, fold.next_state())
                    answers.append(fold.take(result, type(answered) is not Part))
                except asyncio.CancelledError as error:
                    if _is_cancelled():
                        raise  # not the reducer is cancelled, but what runs it
                    answers.append(Failed(error))
                except Exception as error:  # noqa: BLE001 - the event's own, told to its caller
                    answers.append(Failed(error))
                _forget_cancellations()
        except BaseException as error:  # the event loop is being shut down
            self.fail(error)
            raise
        self._hand_in()

    def _hand_in(self) -> None:
        """Submit the fold's change.

        Without one, the state is still held against the store, unless it has just come from
        there: else a reducer that writes nothing would never see what others have written.
        """
        change = self._fold.change(verify=not self.fresh)
        if change is None:
            self._answer()
            self._go_on()
            return
        try:
            self._engine.store.submit(change, self._when_committed)
        except KVSError as error:  # the store was closed
            self.fail(error)

    def _answer(self) -> None:
        answers, self._answers = self._answers, []
        waited = self.answered[: len(answers)]
        del self.events[: len(answers)], self.answered[: len(answers)]
        for answered, answer in zip(waited, answers, strict=True):
            if isinstance(answered, Part):
                answered.answer(answer.error if type(answer) is Failed else None)
            elif answered.done():  # the caller was cancelled meanwhile
                continue
            elif type(answer) is Failed:
                answered.set_exception(answer.error)
            else:
                answered.set_result(answer)

    def _go_on(self) -> None:
        self.fresh = False
        if self.events:
            self.advance()
        else:
            self._engine.rest(self)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _forget_cancellations() -> None:
    """A TaskGroup that failed leaves its task counted as cancelled (Python 3.11 and 3.12)."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def _size(data: bytes | None) -> int:
    """The memory that a state takes, about: text and object hold the same characters, and
    there is a comma for each member but the first."""
    if data is None:
        return STATE_BYTES
    return STATE_BYTES + 2 * len(data) + MEMBER_BYTES * data.count(b",")


class Engine:
    """Runs the events of one event loop against one store."""

    def __init__(self, store: Store, *, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        self.store = store
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._states: dict[Reducer, dict[StateKeys, HeldState]] = {}
        self._missing: list[HeldState] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # States that no event waits for, the one that was used longest ago first.
        self._resting: OrderedDict[HeldState, None] = OrderedDict()
        self._cache_bytes = 0
        self._cache_bytes_max = cache_bytes_max

    def process(self, reducer: Reducer, keys: StateKeys, event: Event) -> asyncio.Future[Json]:
        """Reduce `event` into the state at `keys`, and commit it. Await the result.

        It is the External state as of this event, the caller's own (`False` where the
        reducer wrote none). Raises what the reducer raised, `NotJSON` where it returned
        something else, or what befell the commit; the state is then as it was before, but
        for `OutcomeUnknown`. A caller that is cancelled stops waiting: its event may still
        be applied. Call it from within a task.
        """
        answered: asyncio.Future[Json] = self.loop.create_future()
        held = self._held(reducer, keys)
        held.events.append(event)
        held.answered.append(answered)
        if not held.running:
            self._wake(held)
        return answered

    async def process_batch(
        self, runs: Iterable[tuple[Reducer, StateKeys, Event, int, int]], batch: Batch
    ) -> None:
        """Take many events in and wait until each is committed or has failed.

        A run names the reducer, its state, the event, the event's place in the batch, and
        which of the event's reducers it is. Events of one state keep their order and are
        folded together.
        """
        parts: dict[HeldState, Part] = {}
        for reducer, keys, event, at, rank in runs:
            try:
                held = self._held(reducer, keys)
            except KVSError as error:  # its key can be none
                batch.failed(at, rank, error)
                continue
            part = parts.get(held)
            if part is None:
                part = parts[held] = Part(batch)
                batch.expect()
            part.places.append(at)
            part.ranks.append(rank)
            held.events.append(event)
            held.answered.append(part)
        for held in parts:
            if not held.running:
                self._wake(held)
        await batch.complete()

    def is_here(self) -> bool:
        """Whether its event loop is the running one; see `is_here` of the Redis store."""
        return self._thread == threading.get_ident() and self.loop.is_running()

    def rest(self, held: HeldState) -> None:
        """No event waits for the state: it goes into the cache, or is forgotten."""
        held.running = False
        if not held.known:
            self._forget(held)
            return
        held.size = _size(held.data)
        self._resting[held] = None
        self._cache_bytes += held.size
        while self._cache_bytes > self._cache_bytes_max and self._resting:
            oldest, _ = self._resting.popitem(last=False)
            self._cache_bytes -= oldest.size
            self._forget(oldest)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task of the engine's."""
        task = self.loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    def _held(self, reducer: Reducer, keys: StateKeys) -> HeldState:
        states = self._states.get(reducer)
        if states is None:
            states = self._states[reducer] = {}
        held = states.get(keys)
        if held is None:
            for key in keys:  # an event can bring text that can be no key
                check_key(key)
            held = states[keys] = HeldState(self, reducer, keys)
        return held

    def _forget(self, held: HeldState) -> None:
        del self._states[held.reducer][held.keys]

    def _wake(self, held: HeldState) -> None:
        """The state's turn begins: at once, or when it has been read."""
        held.running = True
        if held.known:
            del self._resting[held]
            self._cache_bytes -= held.size
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
        try:
            found = await self.store.read([held.keys.internal for held in missing])
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
        for held, data in zip(missing, found, strict=True):
            held.found(data)
            held.advance()


_engines: dict[asyncio.AbstractEventLoop, dict[Store, Engine]] = {}


def engine_for(store: Store) -> Engine:
    """The engine of the running event loop for `store`: the same one each time."""
    loop = asyncio.get_running_loop()
    engines = _engines.get(loop)
    if engines is None:
        for ended in [loop for loop in list(_engines) if loop.is_closed()]:
            _engines.pop(ended, None)
        engines = _engines[loop] = {}
    engine = engines.get(store)
    if engine is None:
        engine = engines[store] = Engine(store)
    return engine
