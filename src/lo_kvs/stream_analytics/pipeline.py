"""The event pipeline: sends each event through the reducers of its source."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from lo_kvs.kvs import Store
from lo_kvs.kvs.codec import Json
from lo_kvs.kvs.errors import InvalidKey, shorten
from lo_kvs.stream_analytics.engine.batch import Batch
from lo_kvs.stream_analytics.engine.engine import Engine, Target, default_store, engine_of
from lo_kvs.stream_analytics.engine.fold import Event
from lo_kvs.stream_analytics.engine.route import Route
from lo_kvs.stream_analytics.engine.scope import (
    BadEvent,
    KeyedReducer,
    is_mapping,
    member_of,
)
from lo_kvs.stream_analytics.fields import Scope

__all__ = ["BadEvent", "BadReducers", "Declared", "Pipeline", "check_event"]


class BadReducers(ValueError):
    """A module's `REDUCERS` is invalid; the message says why."""


@dataclass(frozen=True)
class Declared:
    """One entry of a module's `REDUCERS`.

    context  the source whose events it reduces
    keyed    the reducer with its scope
    default  what a query returns if there is no state
    """

    context: str
    keyed: KeyedReducer
    default: Json = None


class Pipeline:
    """Sends each event through the reducers of its source, in the order of `reducers`."""

    def __init__(self, reducers: Iterable[Mapping[str, Any]]) -> None:
        self.reducers = [_declared(entry) for entry in reducers]
        by_source: dict[str, list[KeyedReducer]] = {}
        for declared in self.reducers:
            by_source.setdefault(declared.context, []).append(declared.keyed)
        self._engine: Engine | None = None  # the engine used last
        self._routes = {source: Route(keyed) for source, keyed in by_source.items()}

    @property
    def sources(self) -> frozenset[str]:
        """The sources whose events these reducers process."""
        return frozenset(self._routes)

    @classmethod
    def of_module(cls, module: str | ModuleType) -> Pipeline:
        """The pipeline of a module's `REDUCERS`. Raises `BadReducers`."""
        if isinstance(module, str):
            try:
                module = importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise BadReducers(f"no module named {error.name!r}") from error
        reducers = getattr(module, "REDUCERS", None)
        if not isinstance(reducers, list | tuple):
            raise BadReducers(f"{module.__name__} has no list REDUCERS")
        return cls(reducers)

    async def process(self, event: Event, *, store: Store | None = None) -> int:
        """Run one event through its reducers, one after another, and commit them together.

        Returns how many reducers ran, 0 for an event without a source. Raises `BadEvent` for an
        invalid event or an unknown source, otherwise the error of the first reducer that
        failed; the other reducers still ran.
        """
        plan = self.plan(event)
        if not plan:
            return 0
        engine = self._engine = engine_of(store or default_store(), self._engine)
        batch = Batch(1)
        reducer_index = 0
        while reducer_index < len(plan):
            if engine.backpressure.is_full():
                await engine.backpressure.acquire()
            reducer_index = self._take_turn(engine, event, plan, reducer_index, batch)
            if batch.left:
                await batch.complete(engine.wakeups)
        if batch.errors[0] is not None:
            raise batch.errors[0]
        return len(plan)

    def _take_turn(
        self,
        engine: Engine,
        event: Event,
        plan: tuple[Target, ...],
        reducer_index: int,
        batch: Batch,
    ) -> int:
        """Run the reducers from `reducer_index` up to the first one with an `await`.

        Returns the index of the next one, which runs when these are done.
        """
        target = plan[reducer_index]
        while True:
            waits = target.reducer.awaits
            engine.submit_to_batch(target, event, 0, reducer_index, batch)
            reducer_index += 1
            if waits or reducer_index == len(plan):
                break
            target = plan[reducer_index]
            if target.reducer.awaits:
                break
        engine.wake_all(engine.take_states(batch))
        return reducer_index

    async def process_batch(
        self, events: Sequence[Event], *, store: Store | None = None
    ) -> list[BaseException | None]:
        """Run many events through their reducers; for logs and queues.

        The events of one state are reduced in order and written together. Returns for each
        event `None` or its error: `BadEvent`, or the error of the first of its reducers that
        failed. An error stops neither other events nor other reducers.
        """
        batch = Batch(len(events))
        begin = self._first_to_run(events, batch)
        if begin < len(events):  # without work, no store is needed
            engine = self._engine = engine_of(store or default_store(), self._engine)
            if engine.backpressure.is_full():
                await engine.backpressure.acquire()
            self._submit_all(engine, events, begin, batch)
            await engine.run(batch)
        return batch.errors

    def _first_to_run(self, events: Sequence[Event], batch: Batch) -> int:
        """The index of the first event that has a reducer; earlier ones may have failed."""
        for at in range(len(events)):
            try:
                if self.plan(events[at]):
                    return at
            except Exception as error:  # noqa: BLE001 - the caller gets each event's error
                batch.failed(at, 0, error)
        return len(events)

    def _submit_all(
        self, engine: Engine, events: Sequence[Event], begin: int, batch: Batch
    ) -> None:
        for at in range(begin, len(events)):
            event = events[at]
            try:
                plan = self.plan(event)
            except Exception as error:  # noqa: BLE001 - the caller gets each event's error
                batch.failed(at, 0, error)
                continue
            for reducer_index in range(len(plan)):
                engine.submit_to_batch(plan[reducer_index], event, at, reducer_index, batch)

    def plan(self, event: Event) -> tuple[Target, ...]:
        """The reducers that an event goes through, each with the keys of its state.

        Raises `BadEvent`, and `ScopeFieldError` for a scope that events cannot fill.
        """
        client, metadata = check_event(event)
        source = member_of(metadata, "source")
        if source is None:
            return ()
        route = self._routes.get(source) if isinstance(source, str) else None
        if route is None:
            known = ", ".join(sorted(self._routes)) or "none"
            raise BadEvent(f"unknown metadata.source {shorten(source)}; known: {known}")
        try:
            return route.plan(client, metadata)
        except InvalidKey as error:
            raise BadEvent(str(error)) from error


def check_event(event: Event) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """`client` and `metadata` of an event. Raises `BadEvent` if they are missing or invalid.

    An event is a mapping with `client.event`, the name of the event. An event without
    `metadata` has no source.
    """
    if not is_mapping(event):
        raise BadEvent(f"expected an object, got {type(event).__name__}")
    client = member_of(event, "client")
    if not is_mapping(client):
        raise BadEvent("`client` is missing or not an object")
    if not isinstance(member_of(client, "event"), str):
        raise BadEvent("`client.event`, the name of the event, is missing or not a string")
    metadata = event.get("metadata", {})
    if not is_mapping(metadata):
        raise BadEvent(f"`metadata` must be an object, got {type(metadata).__name__}")
    return client, metadata


def _declared(entry: Mapping[str, Any]) -> Declared:
    if not isinstance(entry, Mapping) or not {"context", "function"} <= entry.keys():
        raise BadReducers(f"an entry of REDUCERS needs `context` and `function`, got {entry!r}")
    function = entry["function"]
    keyed = getattr(function, "_kvs_keyed", None)
    if not isinstance(keyed, KeyedReducer):
        raise BadReducers(f"{function!r} is not a reducer; decorate it with kvs_pipeline")
    scope = Scope(entry.get("scope", keyed.scope))
    if scope != keyed.scope:
        raise BadReducers(
            f"{keyed.reducer.name} has the scope {sorted(f.name for f in keyed.scope)}, "
            f"but REDUCERS declares {sorted(f.name for f in scope)}"
        )
    return Declared(entry["context"], keyed, entry.get("default"))
