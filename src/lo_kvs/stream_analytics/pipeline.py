"""The event pipeline: which reducers an event goes through, and with which fields."""

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
from lo_kvs.stream_analytics.engine.engine import Engine, Place, default_store, engine_of
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
    """A module's `REDUCERS` cannot be used, and why."""


@dataclass(frozen=True)
class Declared:
    """One entry of a module's `REDUCERS`.

    context  the source whose events it reduces
    keyed    the reducer, and how an event tells which state it belongs to
    default  what a query shows where there is no state
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
        self._engine: Engine | None = None  # the one that was used last
        self._routes = {source: Route(keyed) for source, keyed in by_source.items()}

    @property
    def sources(self) -> frozenset[str]:
        """The sources whose events these reducers take."""
        return frozenset(self._routes)

    @classmethod
    def of_module(cls, module: str | ModuleType) -> Pipeline:
        """The pipeline of a module's `REDUCERS`. Raises `BadReducers`."""
        if isinstance(module, str):
            try:
                module = importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise BadReducers(f"there is no module {error.name!r} to import") from error
        reducers = getattr(module, "REDUCERS", None)
        if not isinstance(reducers, list | tuple):
            raise BadReducers(f"{module.__name__} has no list REDUCERS")
        return cls(reducers)

    async def process(self, event: Event, *, store: Store | None = None) -> int:
        """Run one event through its reducers, one after another, and commit them together.

        Returns how many reducers ran: none for an event without a source. Raises
        `BadEvent` for what is no event or has an unknown source, else what the first
        reducer that failed raised; the others ran all the same.
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
        plan: tuple[Place, ...],
        reducer_index: int,
        batch: Batch,
    ) -> int:
        """Run the reducers from `reducer_index` to the first one that waits for something.

        Returns the rank of the next one: it runs when these have been answered.
        """
        place = plan[reducer_index]
        while True:
            waits = place.reducer.awaits
            engine.submit_part(place, event, 0, reducer_index, batch)
            reducer_index += 1
            if waits or reducer_index == len(plan):
                break
            place = plan[reducer_index]
            if place.reducer.awaits:
                break
        engine.wake_all(engine.taken_in(batch))
        return reducer_index

    async def process_batch(
        self, events: Sequence[Event], *, store: Store | None = None
    ) -> list[BaseException | None]:
        """Run many events through their reducers; for logs and queues.

        The events of one state are reduced in order and written together. Returns, for
        each event, `None`, or its error: `BadEvent`, or what the first of its reducers that
        failed raised. An error stops no other event, and no other reducer.
        """
        batch = Batch(len(events))
        begin = self._first_to_run(events, batch)
        if begin < len(events):  # without work no store is asked for
            engine = self._engine = engine_of(store or default_store(), self._engine)
            if engine.backpressure.is_full():
                await engine.backpressure.acquire()
            self._take_in(engine, events, begin, batch)
            await engine.run(batch)
        return batch.errors

    def _first_to_run(self, events: Sequence[Event], batch: Batch) -> int:
        """The place of the first event that has a reducer; those before it may have failed."""
        for at in range(len(events)):
            try:
                if self.plan(events[at]):
                    return at
            except Exception as error:  # noqa: BLE001 - the caller gets each event's error
                batch.failed(at, 0, error)
        return len(events)

    def _take_in(self, engine: Engine, events: Sequence[Event], begin: int, batch: Batch) -> None:
        for at in range(begin, len(events)):
            event = events[at]
            try:
                plan = self.plan(event)
            except Exception as error:  # noqa: BLE001 - the caller gets each event's error
                batch.failed(at, 0, error)
                continue
            for reducer_index in range(len(plan)):
                engine.submit_part(plan[reducer_index], event, at, reducer_index, batch)

    def plan(self, event: Event) -> tuple[Place, ...]:
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
            raise BadEvent(f"metadata.source is unknown: {shorten(source)}; known: {known}")
        try:
            return route.plan(client, metadata)
        except InvalidKey as error:
            raise BadEvent(str(error)) from error


def check_event(event: Event) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """`client` and `metadata` of an event; `BadEvent` says what it lacks.

    An event is a mapping with `client.event`, the name of what happened. An event without
    `metadata` has no source.
    """
    if not is_mapping(event):
        raise BadEvent(f"expected an object, got {type(event).__name__}")
    client = member_of(event, "client")
    if not is_mapping(client):
        raise BadEvent("`client` is missing, or no object")
    if not isinstance(member_of(client, "event"), str):
        raise BadEvent("`client.event`, the name of what happened, is missing or no text")
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
        raise BadReducers(f"{function!r} is no reducer; decorate it with kvs_pipeline")
    scope = Scope(entry.get("scope", keyed.scope))
    if scope != keyed.scope:
        raise BadReducers(
            f"{keyed.reducer.name} reduces by {sorted(f.name for f in keyed.scope)}, "
            f"but REDUCERS says {sorted(f.name for f in scope)}"
        )
    return Declared(entry["context"], keyed, entry.get("default"))
