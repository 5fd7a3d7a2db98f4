"""The way of one source's events: from what an event says to the states that it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from learning_observer.stream_analytics.engine import Place
from learning_observer.stream_analytics.keyed import KeyedReducer, named_student

#: How many plans a route keeps, so that it need not make them for each event.
PLANS_KEPT_MAX: Final = 10_000


class Route:
    """The reducers of one source, in their order."""

    __slots__ = ("_names", "_plans", "_reducers")

    def __init__(self, reducers: Sequence[KeyedReducer]) -> None:
        self._reducers = reducers
        # The event fields that tell states apart.
        self._names = sorted({name for each in reducers for name in each.event_fields})
        self._plans: dict[Any, tuple[Place, ...]] = {}

    def plan(self, client: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[Place, ...]:
        """The reducers that an event goes through, each with the keys of its state.

        Most events go where one before them went, so their plan is made already.
        Raises `ScopeFieldError` for a scope that events cannot fill, `BadEvent` for a
        student that is no text.
        """
        chosen: Any = named_student(metadata)
        if self._names:
            fields = [str(client[name]) if name in client else None for name in self._names]
            chosen = (chosen, *fields)
        plan = self._plans.get(chosen)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT_MAX:
                self._plans.clear()
            plan = self._plans[chosen] = self._made(client, metadata)
        return plan

    def _made(self, client: Mapping[str, Any], metadata: Mapping[str, Any]) -> tuple[Place, ...]:
        return tuple(
            Place(keyed.reducer, keyed.keys(metadata, client))
            for keyed in self._reducers
            # An event that lacks a field that tells the states apart is not for it.
            if all(name in client for name in keyed.event_fields)
        )
