"""The engine: reducers over states that are held in the process, committed in groups.

Every state has an entry: the bytes that stand in the store as far as is known, the state
decoded from them, and the events that wait for it. Events of one entry are reduced in
order; entries never wait for each other. While a commit of an entry is under way, its next
events gather, and are then *folded*: reduced one after another, written once.

Reducers run more than once on an event where another writer was faster, so they must be
functions of (event, state). One that never awaits runs at once, without a task of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from learning_observer.kvs import codec
from learning_observer.kvs.codec import Json
from learning_observer.kvs.errors import KVSError, NotJSON
from learning_observer.kvs.store import (
    GROUP_KEYS_MAX,
    Change,
    Conflict,
    Outcome,
    Store,
    decode,
    encode,
)

Event: TypeAlias = Any
ReducerFunction: TypeAlias = Callable[[Event, Any], Awaitable[tuple[Any, Any]]]
#: Called once for an event: with its External state, or with what went wrong.
Done: TypeAlias = Callable[[Json, BaseException | None], object]

#: States that no event waits for are kept up to this many bytes of their JSON text.
CACHE_BYTES_MAX: Final = 64 * 1024 * 1024
#: What an entry takes besides that text, roughly: its keys, its objects.
ENTRY_BYTES: Final = 1024
#: Events folded into one commit at most, so that the first of them is answered soon.
FOLD_EVENTS_MAX: Final = 256


@dataclass(eq=False)
class Reducer:
    """A reducer function, the JSON text of its null state, and how it runs."""

    name: str
    function: ReducerFunction
    null: bytes
    awaits: bool = False  # it was seen to wait for something: it runs in a task

    async def run(self, event: Event, state: Json) -> tuple[Any, Any]:
        """(internal, external) as the function returns them."""
        result = await self.function(event, state)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise TypeError(
                f"{self.name} must return (internal, external), got {type(result).__name__}"
            )
        return result[0], result[1]


class StateKeys(NamedTuple):
    """The two keys of one state."""

    internal: str
    external: str


class Waiting(NamedTuple):
    """An event that waits for its turn."""

    event: Event
    done: Done


class _Fold(NamedTuple):
    """What a run over the waiting events came to: the change to make, and each answer."""

    change: Change | None
    state: Json
    answers: list[tuple[Done, Json, BaseException | None]]


class _Entry:
    """One state of one reducer."""

    __slots__ = ("data", "known", "keys", "reducer", "running", "size", "state", "waiting")

    def __init__(self, keys: StateKeys, reducer: Reducer) -> None:
        self.keys = keys
        self.reducer = reducer
        self.waiting: deque[Waiting] = deque()
        self.running = False  # being read, reduced or committed
        self.known = False  # whether `data` is what was last seen in the store
        self.data: bytes | None = None
        self.state: Json = UNDECODED
        self.size = 0  # bytes counted against the cache


class _Undecoded:
    """Stands where a state has to be decoded from its bytes first."""


UNDECODED: Final[Any] = _Undecoded()


class Engine:
    """Runs the events of one event loop against one store."""

    def __init__(self, store: Store, *, cache_bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._entries: dict[tuple[StateKeys, Reducer], _Entry] = {}
        self._missing: list[_Entry] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # Entries at rest, the one that was used longest ago first.
        self._resting: OrderedDict[tuple[StateKeys, Reducer], _Entry] = OrderedDict()
        self._cache_bytes = 0
        self._cache_bytes_max = cache_bytes_max

    async def process(self, reducer: Reducer, keys: StateKeys, event: Event) -> Json:
        """Reduce `event` into the state at `keys`, and commit it.

        Returns the External state as of this event, the caller's own (`False` where the
        reducer wrote none). Raises what the reducer raised, `NotJSON` where it returned
        something else, or what befell the commit; the state is then as it was before, but
        for `OutcomeUnknown`. A caller that is cancelled stops waiting: its event may still
        be applied.
        """
        answered: asyncio.Future[Json] = self._loop.create_future()

        def done(external: Json, error: BaseException | None) -> None:
            if answered.done():  # the caller was cancelled meanwhile
                return
            if error is None:
                answered.set_result(external)
            else:
                answered.set_exception(error)

        entry = self._entry(reducer, keys)
        entry.waiting.append(Waiting(event, done))
        if not entry.running:
            self._wake(entry)
        return await answered

    def submit(self, items: Iterable[tuple[Reducer, StateKeys, Event, Done]]) -> None:
        """Take many events in; each `done(external, error)` is called when it is committed
        or has failed. Events of one state keep their order and are folded together.
        Call it from within a task.
        """
        woken: dict[_Entry, None] = {}
        for reducer, keys, event, done in items:
            entry = self._entry(reducer, keys)
            entry.waiting.append(Waiting(event, done))
            if not entry.running:
                woken[entry] = None
        for entry in woken:
            self._wake(entry)

    # -- one entry after another ---------------------------------------------------------

    def _entry(self, reducer: Reducer, keys: StateKeys) -> _Entry:
        place = (keys, reducer)
        entry = self._entries.get(place)
        if entry is None:
            entry = self._entries[place] = _Entry(keys, reducer)
        return entry

    def _wake(self, entry: _Entry) -> None:
        """The entry's turn begins: with its state, or with a place among the missing ones."""
        entry.running = True
        if self._resting.pop((entry.keys, entry.reducer), None) is not None:
            self._cache_bytes -= entry.size
        if entry.known:
            self._advance(entry)
            return
        if not self._missing:  # all that are missed until this task runs are read together
            self._spawn(self._fetch())
        self._missing.append(entry)

    async def _fetch(self) -> None:
        missing, self._missing = self._missing, []
        for start in range(0, len(missing), GROUP_KEYS_MAX):
            await self._fetch_part(missing[start : start + GROUP_KEYS_MAX])

    async def _fetch_part(self, missing: list[_Entry]) -> None:
        try:
            found = await self._store.read([entry.keys.internal for entry in missing])
        except Exception as error:
            if len(missing) == 1:
                self._fail(missing[0], error)
                return
            for entry in missing:  # one bad key must not fail the others
                await self._fetch_part([entry])
            return
        for entry, data in zip(missing, found, strict=True):
            entry.known, entry.data, entry.state = True, data, UNDECODED
            self._advance(entry)

    def _advance(self, entry: _Entry) -> None:
        """Fold what waits for the entry, at once where its reducer never awaits."""
        if entry.reducer.awaits:
            self._spawn(self._fold_and_commit(entry))
            return
        fold = self._fold(entry)
        try:
            fold.send(None)
        except StopIteration as finished:
            self._commit(entry, finished.value)
        except BaseException as error:
            self._fail(entry, error)
            raise
        else:
            # It waits for something. From now on it runs in a task, which it may need for
            # time-outs and the like; running again from the start is what reducers allow.
            with contextlib.suppress(RuntimeError):  # it awaits while it is being closed
                fold.close()
            entry.reducer.awaits = True
            entry.state = UNDECODED
            self._spawn(self._fold_and_commit(entry))

    async def _fold_and_commit(self, entry: _Entry) -> None:
        try:
            fold = await self._fold(entry)
        except BaseException as error:  # the event loop is being shut down
            self._fail(entry, error)
            raise
        self._commit(entry, fold)

    async def _fold(self, entry: _Entry) -> _Fold:
        """Reduce the waiting events, one after another, on the entry's state."""
        reducer, (internal_key, external_key) = entry.reducer, entry.keys
        data, state = entry.data, entry.state
        entry.state = UNDECODED  # reducers may change it in place
        puts: dict[str, bytes | None] = {}
        answers: list[tuple[Done, Json, BaseException | None]] = []
        for event, done in list(entry.waiting)[:FOLD_EVENTS_MAX]:
            try:
                if state is UNDECODED:
                    state = decode(internal_key, reducer.null if data is None else data)
                internal, external = await reducer.run(event, state)
                # Encoded before anything is taken over: what is no JSON changes nothing.
                if internal is False:
                    # Without a state there is the null state, even if it is not written.
                    new, next_state = (reducer.null if data is None else data), UNDECODED
                else:
                    new, next_state = _encode_state(internal_key, internal)
                shown = None
                if external is not False:
                    same = external is internal
                    shown = new if same else encode(external_key, external)
                    external = _private(external, shown, same)
            except (Exception, asyncio.CancelledError) as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise  # not the reducer is cancelled, but what runs it
                answers.append((done, None, error))
                state = UNDECODED  # whatever the reducer did to it
                continue
            if internal is not False or data is None:
                puts[internal_key] = new
            if shown is not None:
                puts[external_key] = shown
            data, state = new, next_state
            answers.append((done, external, None))
        change = Change(internal_key, entry.data, puts) if puts else None
        return _Fold(change, state, answers)

    # -- commit ----------------------------------------------------------------------------

    def _commit(self, entry: _Entry, fold: _Fold) -> None:
        def committed(outcome: Outcome) -> None:
            self._committed(entry, fold, outcome)

        if fold.change is None:
            self._finish(entry, fold)
            return
        try:
            self._store.submit(fold.change, committed)
        except KVSError as error:
            self._committed(entry, fold, error)

    def _committed(self, entry: _Entry, fold: _Fold, outcome: Outcome) -> None:
        if outcome is None and fold.change is not None:
            put = fold.change.puts.get(entry.keys.internal)
            if put is not None:
                entry.data = put
            entry.state = fold.state
            self._finish(entry, fold)
        elif isinstance(outcome, Conflict):
            # Somebody else was faster: the same events again, on what stands there now.
            entry.data, entry.state = outcome.current, UNDECODED
            self._advance(entry)
        else:
            entry.known = False
            failed = [(done, None, error or outcome) for done, _, error in fold.answers]
            self._finish(entry, fold._replace(answers=failed))

    def _finish(self, entry: _Entry, fold: _Fold) -> None:
        for done, external, error in fold.answers:
            entry.waiting.popleft()
            done(external, error)
        self._rest(entry)

    def _fail(self, entry: _Entry, error: BaseException) -> None:
        """Answer every event that waits with `error`; nothing was written for them."""
        waiting = list(entry.waiting)
        entry.waiting.clear()
        entry.known = False
        for _, done in waiting:
            done(None, error)
        self._rest(entry)

    def _rest(self, entry: _Entry) -> None:
        """The entry's turn is over: on to its next events, or into the cache."""
        if entry.waiting:
            self._spawn(self._wake_later(entry))
            return
        entry.running = False
        place = (entry.keys, entry.reducer)
        if not entry.known:
            del self._entries[place]
            return
        entry.size = ENTRY_BYTES + len(entry.data or b"")
        self._resting[place] = entry
        self._cache_bytes += entry.size
        while self._cache_bytes > self._cache_bytes_max and self._resting:
            place, oldest = self._resting.popitem(last=False)
            self._cache_bytes -= oldest.size
            del self._entries[place]

    async def _wake_later(self, entry: _Entry) -> None:
        self._wake(entry)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)


def _encode_state(key: str, value: object) -> tuple[bytes, Json]:
    """The JSON text of a new Internal state, and the state for the next event.

    Only a flat state is kept as an object, copied: whatever is nested may belong to the
    event or to the External state as well, and is decoded afresh.
    """
    try:
        data, plain = codec.encode_state(value)
    except NotJSON as error:
        raise NotJSON(error.path, error.reason, key) from None
    if plain and codec.is_flat(value):
        return data, _shallow(value)
    return data, UNDECODED


def _private(external: Json, data: bytes, same: bool) -> Json:
    """The External state as the caller's own: nothing in it is shared with the state."""
    if not codec.is_flat(external) or isinstance(external, tuple):
        return codec.decode(data)
    return _shallow(external) if same else codec.decode(data)


def _shallow(value: Any) -> Json:
    return value.copy() if isinstance(value, dict | list) else value  # type: ignore[no-any-return]


_engines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Store, Engine]] = (
    weakref.WeakKeyDictionary()
)


def engine_for(store: Store) -> Engine:
    """The engine of the running event loop for `store`: the same one each time."""
    engines = _engines.setdefault(asyncio.get_running_loop(), {})
    engine = engines.get(store)
    if engine is None:
        engine = engines[store] = Engine(store)
    return engine
