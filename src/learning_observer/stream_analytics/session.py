"""A session: the events of one source on one reducer, on their way to their states."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from learning_observer.kvs.codec import Json
from learning_observer.stream_analytics.engine import Engine, default_store, engine_of
from learning_observer.stream_analytics.fold import Event
from learning_observer.stream_analytics.held_state import HeldState
from learning_observer.stream_analytics.keyed import KeyedReducer, student_of


class Session:
    """Takes the events of one source, for one reducer."""

    __slots__ = ("_by_event", "_engine", "_held", "_keyed", "_student")

    def __init__(self, keyed: KeyedReducer, metadata: Mapping[str, Any] | None) -> None:
        self._keyed = keyed
        self._student = student_of(metadata)
        self._by_event = bool(keyed.event_fields)
        self._engine: Engine | None = None
        self._held: HeldState | None = None

    def take(self, event: Event, event_fields: Mapping[str, Any] | None) -> Awaitable[Json]:
        """Reduce and commit `event`; await what `Engine.process` returns."""
        # The store is looked up at each event: a test may have put in another one.
        engine = self._engine = engine_of(default_store(), self._engine)
        if engine.room.is_full():
            return self._take_later(engine, event, event_fields)
        return engine.take(self._state(engine, event_fields), event)

    async def _take_later(
        self, engine: Engine, event: Event, event_fields: Mapping[str, Any] | None
    ) -> Json:
        await engine.room.enter()
        return await engine.take(self._state(engine, event_fields), event)

    def _state(self, engine: Engine, event_fields: Mapping[str, Any] | None) -> HeldState:
        held = self._held
        # Without fields of events the state is the same for all of them.
        if held is None or held.forgotten or held.keeper is not engine or self._by_event:
            keyed = self._keyed
            held = engine.held(keyed.reducer, keyed.keys_of(self._student, event_fields))
            self._held = held
        return held
