"""The event pipeline: which reducers an event goes through, and with which fields."""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from learning_observer import kvs
from learning_observer.kvs import Store
from learning_observer.kvs.codec import Json
from learning_observer.stream_analytics.engine import Engine, engine_for
from learning_observer.stream_analytics.fields import Scope
from learning_observer.stream_analytics.fold import Event, Reducer, StateKeys
from learning_observer.stream_analytics.helpers import KeyedReducer


class BadEvent(ValueError):
    """What came is no event, and why. Nothing was reduced."""


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
        self._by_source: dict[str, list[Declared]] = {}
        for declared in self.reducers:
            self._by_source.setdefault(declared.context, []).append(declared)

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
        """Run one event through its reducers, one after another, and commit each.

        Returns how many reducers ran: none for an event without a source. Raises
        `BadEvent` for what is no event or has an unknown source, else what the first
        reducer that failed raised; the ones after it did not run then.
        """
        runs = self.plan(event)
        engine = engine_for(store or kvs.KVS())
        for reducer, keys in runs:
            await engine.process(reducer, keys, event)
        return len(runs)

    async def process_batch(
        self, events: Sequence[Event], *, store: Store | None = None
    ) -> list[BaseException | None]:
        """Run many events through their reducers; for logs and queues.

        The events of one state are reduced in order and written together. Returns, for
        each event, `None`, or its error: `BadEvent`, or what the first of its reducers that
        failed raised. An error stops no other event, and (unlike in `process`) no other
        reducer.
        """
        errors: list[BaseException | None] = [None] * len(events)
        runs: list[tuple[int, Event, Reducer, StateKeys]] = []
        for at, event in enumerate(events):
            try:
                runs += [(at, event, *run) for run in self.plan(event)]
            except Exception as error:  # noqa: BLE001 - the caller gets each event's error
                errors[at] = error
        if runs:
            await _run_all(engine_for(store or kvs.KVS()), runs, errors)
        return errors

    def plan(self, event: Event) -> list[tuple[Reducer, StateKeys]]:
        """The reducers that an event goes through, each with the keys of its state."""
        client, metadata = check_event(event)
        source = metadata.get("source")
        if source is None:
            return []
        declared = self._by_source.get(source) if isinstance(source, str) else None
        if declared is None:
            known = ", ".join(sorted(self._by_source)) or "none"
            raise BadEvent(f"metadata.source is unknown: {source!r}; known: {known}")
        return [
            (reducer.keyed.reducer, reducer.keyed.keys(metadata, client))
            for reducer in declared
            # An event that lacks a field that tells the states apart is not for it.
            if all(name in client for name in reducer.keyed.event_fields)
        ]


def check_event(event: Event) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """`client` and `metadata` of an event; `BadEvent` says what it lacks.

    An event is a mapping with `client.event`, the name of what happened. An event without
    `metadata` has no source.
    """
    if not isinstance(event, Mapping):
        raise BadEvent(f"expected an object, got {type(event).__name__}")
    client = event.get("client")
    if not isinstance(client, Mapping):
        raise BadEvent("`client` is missing, or no object")
    if not isinstance(client.get("event"), str):
        raise BadEvent("`client.event`, the name of what happened, is missing or no text")
    metadata = event.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise BadEvent(f"`metadata` must be an object, got {type(metadata).__name__}")
    return client, metadata


async def _run_all(
    engine: Engine,
    runs: list[tuple[int, Event, Reducer, StateKeys]],
    errors: list[BaseException | None],
) -> None:
    left = len(runs)
    failures: list[BaseException | None] = [None] * left
    complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(number: int, _external: Json, error: BaseException | None) -> None:
        nonlocal left
        left -= 1
        failures[number] = error
        if not left and not complete.done():  # done: the caller was cancelled
            complete.set_result(None)

    engine.submit(
        (reducer, keys, event, functools.partial(answered, number))
        for number, (_, event, reducer, keys) in enumerate(runs)
    )
    await complete
    for (at, *_), failure in zip(runs, failures, strict=True):
        if errors[at] is None:  # of its reducers' errors, the first reducer's is the event's
            errors[at] = failure


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
