"""A session: applies the events of one source to the states of one reducer."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from lo_kvs.kvs.codec import Json
from lo_kvs.stream_analytics.engine.engine import Engine, default_store, engine_of
from lo_kvs.stream_analytics.engine.fold import Event
from lo_kvs.stream_analytics.engine.scope import KeyedReducer, student_of
from lo_kvs.stream_analytics.engine.state_slot import StateSlot


class Session:
    """Submits the events of one source to one reducer."""

    __slots__ = ("_by_event", "_engine", "_keyed", "_slot", "_student")

    def __init__(self, keyed: KeyedReducer, metadata: Mapping[str, Any] | None) -> None:
        self._keyed = keyed
        self._student = student_of(metadata)
        self._by_event = bool(keyed.event_fields)
        self._engine: Engine | None = None
        self._slot: StateSlot | None = None

    def submit(self, event: Event, event_fields: Mapping[str, Any] | None) -> Awaitable[Json]:
        """Reduce and commit `event`. Await the result, the same as that of `Engine.process`."""
        # The store is looked up for each event: a test may have replaced it.
        engine = self._engine = engine_of(default_store(), self._engine)
        if engine.backpressure.is_full():
            return self._submit_later(engine, event, event_fields)
        return engine.submit(self._state(engine, event_fields), event)

    async def _submit_later(
        self, engine: Engine, event: Event, event_fields: Mapping[str, Any] | None
    ) -> Json:
        await engine.backpressure.acquire()
        return await engine.submit(self._state(engine, event_fields), event)

    def _state(self, engine: Engine, event_fields: Mapping[str, Any] | None) -> StateSlot:
        slot = self._slot
        # Without event fields in the scope, all events go to the same state.
        if slot is None or slot.evicted or slot.engine is not engine or self._by_event:
            keyed = self._keyed
            slot = engine.slot(keyed.reducer, keyed.keys_of(self._student, event_fields))
            self._slot = slot
        return slot
