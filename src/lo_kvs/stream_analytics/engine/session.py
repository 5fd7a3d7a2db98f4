"""A session: the events of one source on one reducer, on their way to their states."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from lo_kvs.kvs.codec import Json
from lo_kvs.stream_analytics.engine.engine import Engine, default_store, engine_of
from lo_kvs.stream_analytics.engine.fold import Event
from lo_kvs.stream_analytics.engine.scope import KeyedReducer, student_of
from lo_kvs.stream_analytics.engine.state_slot import StateSlot


class Session:
    """Takes the events of one source, for one reducer."""

    __slots__ = ("_by_event", "_engine", "_keyed", "_slot", "_student")

    def __init__(self, keyed: KeyedReducer, metadata: Mapping[str, Any] | None) -> None:
        self._keyed = keyed
        self._student = student_of(metadata)
        self._by_event = bool(keyed.event_fields)
        self._engine: Engine | None = None
        self._slot: StateSlot | None = None

    def submit(self, event: Event, event_fields: Mapping[str, Any] | None) -> Awaitable[Json]:
        """Reduce and commit `event`; await what `Engine.process` returns."""
        # The store is looked up at each event: a test may have put in another one.
        engine = self._engine = engine_of(default_store(), self._engine)
        if engine.backpressure.is_full():
            return self._take_later(engine, event, event_fields)
        return engine.submit(self._state(engine, event_fields), event)

    async def _take_later(
        self, engine: Engine, event: Event, event_fields: Mapping[str, Any] | None
    ) -> Json:
        await engine.backpressure.acquire()
        return await engine.submit(self._state(engine, event_fields), event)

    def _state(self, engine: Engine, event_fields: Mapping[str, Any] | None) -> StateSlot:
        slot = self._slot
        # Without fields of events the state is the same for all of them.
        if slot is None or slot.evicted or slot.engine is not engine or self._by_event:
            keyed = self._keyed
            slot = engine.slot(keyed.reducer, keyed.keys_of(self._student, event_fields))
            self._slot = slot
        return slot
