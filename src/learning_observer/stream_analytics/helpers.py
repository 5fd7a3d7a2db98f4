"""The decorators that make reducers of functions, and the names that modules import.

from learning_observer.stream_analytics.helpers import student_event_reducer

@student_event_reducer(null_state={"count": 0})
async def event_count(event, state):
    state["count"] += 1
    return state, {"count": state["count"]}
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias

from learning_observer import kvs
from learning_observer.kvs import codec
from learning_observer.kvs.codec import Json
from learning_observer.stream_analytics.engine import Engine, engine_for
from learning_observer.stream_analytics.fields import (
    EventField,
    Field,
    KeyField,
    KeyStateType,
    Scope,
    ScopeFieldError,
)
from learning_observer.stream_analytics.fold import Event, Reducer, ReducerFunction, StateKeys
from learning_observer.stream_analytics.held_state import HeldState
from learning_observer.stream_analytics.keys import (
    fully_qualified_function_name,
    make_key,
    make_key_from_json,
    parse_key,
)

__all__ = [
    "EventField",
    "KeyField",
    "KeyStateType",
    "Scope",
    "fully_qualified_function_name",
    "kvs_pipeline",
    "make_key",
    "make_key_from_json",
    "parse_key",
    "student_event_reducer",
]

#: Who an event without a student is counted for.
GUEST: Final = "[guest]"
#: How many states' keys a reducer keeps, so that it need not make them for each event.
KEYS_KEPT_MAX: Final = 10_000
STUDENT_SCOPE: Final = Scope([KeyField.STUDENT])


class Process(Protocol):
    """What a reducer becomes for one source of events: `await process(event, fields)`."""

    def __call__(
        self, event: Event, event_fields: Mapping[str, Any] | None = None
    ) -> Awaitable[Json]: ...


#: A decorated reducer: `process = await reducer(metadata)`.
DecoratedReducer: TypeAlias = Callable[[Mapping[str, Any] | None], Awaitable[Process]]


def kvs_pipeline(
    null_state: Json = None,
    scope: Iterable[Field] | None = None,
    module_override: str | None = None,
    qualname_override: str | None = None,
) -> Callable[[ReducerFunction], DecoratedReducer]:
    """Make a reducer of `async (event, state) -> (internal, external)`.

    null_state   the state before the first event; each first event gets a copy of its own
    scope        the fields that tell one state from another; default: the student
    …_override   stand in keys instead of the function's module and qualname

    Of what the function returns, the object `False`, and only it, means "do not write this
    half". The function may change the state it is given. It may run more than once on an
    event, when another writer was faster, so it must be a function of (event, state).

    The result is used as `process = await reducer(metadata)`, for one source of events, and
    `external = await process(event, event_fields)`, once for each event. `process` returns
    once both halves are committed, together; see `Engine.process` for what it returns and
    raises. A scope's field that has no value raises `ScopeFieldError` at event time.

    Raises `NotJSON` for a null state that is none, `TypeError` for what is no coroutine
    function, `ScopeFieldError` for a scope that holds something other than fields.
    """
    null = codec.encode(null_state)
    fields = _checked_scope(scope)
    for override in (module_override, qualname_override):
        if override is not None and "," in override:
            raise ScopeFieldError(f"a name in keys cannot have a comma, got {override!r}")

    def decorator(function: ReducerFunction) -> DecoratedReducer:
        if not inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise TypeError(f"a reducer must be an `async def` of (event, state), got {function!r}")

        @functools.wraps(function)
        async def reducer(metadata: Mapping[str, Any] | None = None) -> Process:
            return keyed.session(metadata)

        reducer.__dict__.update(_kvs_module=module_override, _kvs_qualname=qualname_override)
        name = fully_qualified_function_name(reducer)
        keyed = reducer.__dict__["_kvs_keyed"] = KeyedReducer(Reducer(name, function, null), fields)
        return reducer

    return decorator


class KeyedReducer:
    """A reducer with its scope: which of its states an event belongs to.

    A decorated function has it as its attribute `_kvs_keyed`.
    """

    def __init__(self, reducer: Reducer, scope: Scope) -> None:
        self.reducer = reducer
        self.scope = scope
        self.event_fields = [field.event for field in scope if isinstance(field, EventField)]
        self._kept: dict[tuple[str, ...], StateKeys] = {}

    def keys(
        self, metadata: Mapping[str, Any] | None, event_fields: Mapping[str, Any] | None
    ) -> StateKeys:
        """The keys of the state that an event belongs to. Raises `ScopeFieldError`."""
        return self._keys(student_of(metadata), event_fields or {})

    def session(self, metadata: Mapping[str, Any] | None) -> Process:
        """`process(event, event_fields)` for the events of one source."""
        student = student_of(metadata)
        engine: Engine | None = None
        held: HeldState | None = None

        async def process(event: Event, event_fields: Mapping[str, Any] | None = None) -> Json:
            nonlocal engine, held
            # The store is looked up at each event: a test may have put in another one.
            store = kvs.KVS()
            if engine is None or engine.store is not store or not engine.is_here():
                engine, held = engine_for(store), None
            if engine.is_full():
                await engine.room()
            # Without fields of events the state is the same for all of them.
            if held is None or held.forgotten or self.event_fields:
                held = engine.held(self.reducer, self._keys(student, event_fields or {}))
            return await engine.take(held, event)

        return process

    def _keys(self, student: str, event_fields: Mapping[str, Any]) -> StateKeys:
        # Making a key takes longer than reducing a small event, and few are new.
        chosen = (student, *[str(event_fields.get(name)) for name in self.event_fields])
        keys = self._kept.get(chosen)
        if keys is None:
            values = self._values(student, event_fields)
            keys = StateKeys(
                make_key(self.reducer.name, values, KeyStateType.INTERNAL),
                make_key(self.reducer.name, values, KeyStateType.EXTERNAL),
            )
            if len(self._kept) >= KEYS_KEPT_MAX:
                self._kept.clear()
            self._kept[chosen] = keys
        return keys

    def _values(self, student: str, event_fields: Mapping[str, Any]) -> dict[Field, object]:
        """The value of each field of the scope; a missing event field is the text `None`."""
        values: dict[Field, object] = {}
        for field in self.scope:
            if isinstance(field, EventField):
                values[field] = event_fields.get(field.event)
            elif field is KeyField.STUDENT:
                values[field] = student
            else:
                raise ScopeFieldError(
                    f"events do not say which {field.value} they belong to; "
                    "use KeyField.STUDENT and EventFields in a reducer's scope"
                )
        return values


def student_event_reducer(
    null_state: Json = None,
    scope: Iterable[Field] | None = STUDENT_SCOPE,
    module_override: str | None = None,
    qualname_override: str | None = None,
) -> Callable[[ReducerFunction], DecoratedReducer]:
    """`kvs_pipeline` with a state for each student, unless `scope` says otherwise."""
    return kvs_pipeline(null_state, scope, module_override, qualname_override)


def student_of(metadata: Mapping[str, Any] | None) -> str:
    """Who the events of this source are counted for."""
    auth = metadata.get("auth") if metadata else None
    student = auth.get("safe_user_id") if isinstance(auth, (dict, Mapping)) else None
    return GUEST if student is None else str(student)


def _checked_scope(scope: Iterable[Field] | None) -> Scope:
    fields = STUDENT_SCOPE if scope is None else Scope(scope)
    for field in fields:
        if not isinstance(field, KeyField | EventField):
            raise ScopeFieldError(f"a scope holds KeyFields and EventFields, got {field!r}")
    return fields
