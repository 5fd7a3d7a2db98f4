"""The decorators that make reducers of functions, and the names that modules import.

    from learning_observer.stream_analytics.helpers import student_event_reducer

    @student_event_reducer(null_state={"count": 0})
    async def event_count(event, state):
        state["count"] += 1
        return state, {"count": state["count"]}
"""

from __future__ import annotations

import asyncio
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
#: How many keys a session keeps, so that it need not make them for each event.
KEYS_KEPT_MAX: Final = 64
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
    fields = STUDENT_SCOPE if scope is None else Scope(scope)
    for field in fields:
        if not isinstance(field, KeyField | EventField):
            raise ScopeFieldError(f"a scope holds KeyFields and EventFields, got {field!r}")
    for override in (module_override, qualname_override):
        if override is not None and "," in override:
            raise ScopeFieldError(f"a name in keys cannot have a comma, got {override!r}")

    event_names = [field.event for field in fields if isinstance(field, EventField)]

    def decorator(function: ReducerFunction) -> DecoratedReducer:
        if not inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise TypeError(
                f"a reducer must be an `async def` of (event, state), got {function!r}"
            )

        @functools.wraps(function)
        async def reducer(metadata: Mapping[str, Any] | None = None) -> Process:
            student = _student(metadata)
            known: dict[tuple[object, ...], StateKeys] = {}
            engine: Engine | None = None

            async def process(event: Event, event_fields: Mapping[str, Any] | None = None) -> Json:
                nonlocal engine
                # A session has few documents, so their keys are made once, and kept a while.
                chosen = (
                    tuple([(event_fields or {}).get(name) for name in event_names])
                    if event_names
                    else ()
                )
                try:
                    keys = known.get(chosen)
                except TypeError:  # a value that cannot be hashed is made into text each time
                    keys = state_keys(student, event_fields)
                if keys is None:
                    keys = state_keys(student, event_fields)
                    if len(known) >= KEYS_KEPT_MAX:
                        known.clear()
                    known[chosen] = keys
                # The store is looked up at each event: a test may have put in another one.
                store = kvs.KVS()
                if (
                    engine is None
                    or engine.store is not store
                    or engine.loop is not asyncio.get_running_loop()
                ):
                    engine = engine_for(store)
                return await engine.process(made, keys, event)

            return process

        def state_keys(student: str, event_fields: Mapping[str, Any] | None) -> StateKeys:
            values = _values(fields, student, event_fields or {})
            return StateKeys(
                make_key(reducer, values, KeyStateType.INTERNAL),
                make_key(reducer, values, KeyStateType.EXTERNAL),
            )

        def prepare(
            metadata: Mapping[str, Any] | None, event_fields: Mapping[str, Any] | None
        ) -> tuple[Reducer, StateKeys]:
            return made, state_keys(_student(metadata), event_fields)

        reducer.__dict__.update(
            _kvs_module=module_override,
            _kvs_qualname=qualname_override,
            _kvs_scope=fields,
            _kvs_prepare=prepare,
        )
        made = Reducer(fully_qualified_function_name(reducer), function, null)
        return reducer

    return decorator


def student_event_reducer(
    null_state: Json = None,
    scope: Iterable[Field] | None = STUDENT_SCOPE,
    module_override: str | None = None,
    qualname_override: str | None = None,
) -> Callable[[ReducerFunction], DecoratedReducer]:
    """`kvs_pipeline` with a state for each student, unless `scope` says otherwise."""
    return kvs_pipeline(null_state, scope, module_override, qualname_override)


def _student(metadata: Mapping[str, Any] | None) -> str:
    auth = (metadata or {}).get("auth")
    student = auth.get("safe_user_id") if isinstance(auth, Mapping) else None
    return GUEST if student is None else str(student)


def _values(
    scope: Scope, student: str, event_fields: Mapping[str, Any]
) -> dict[Field, object]:
    """The value of each field of the scope; a missing event field is the text `None`."""
    values: dict[Field, object] = {}
    for field in scope:
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
