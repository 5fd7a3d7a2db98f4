"""Routing: which reducers and states an event of one source goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lo_kvs.stream_analytics.engine.engine import Target
from lo_kvs.stream_analytics.engine.scope import Kept, KeyedReducer, named_student, text_of


class Route:
    """The reducers of one source, in order."""

    __slots__ = ("_kept", "_names", "_plans", "_reducers")

    def __init__(self, reducers: Sequence[KeyedReducer]) -> None:
        self._reducers = reducers
        # The event fields that select a state.
        self._names = sorted({name for each in reducers for name in each.event_fields})
        self._kept: Kept[tuple[Target, ...]] = Kept()
        self._plans = self._kept.known

    def plan(self, client: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[Target, ...]:
        """The reducers that an event goes through, each with the keys of its state.

        Plans are cached, as most events go to the same states as an earlier one.
        Raises `ScopeFieldError` for a scope that events cannot fill, `BadEvent` for a student
        ID that is not text, and `InvalidKey` for a value that is too long.
        """
        chosen: Any = named_student(metadata)
        if self._names:
            fields = [text_of(client[name]) if name in client else None for name in self._names]
            chosen = (chosen, *fields)
        plan = self._plans.get(chosen)
        if plan is None:
            plan = self._made(client, metadata)
            texts = [chosen] if isinstance(chosen, str) else [*chosen]
            for target in plan:
                texts += target.keys
            self._kept.keep(chosen, plan, texts)
        return plan

    def _made(self, client: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[Target, ...]:
        return tuple(
            Target(keyed.reducer, keyed.keys(metadata, client))
            for keyed in self._reducers
            # Skip reducers whose scope needs a field that the event does not have.
            if all(name in client for name in keyed.event_fields)
        )
