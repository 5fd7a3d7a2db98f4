"""The decorators that make reducers of functions, and the names that modules import.

from lo_kvs.stream_analytics.helpers import student_event_reducer

@student_event_reducer(null_state={"count": 0})
async def event_count(event, state):
    state["count"] += 1
    return state, {"count": state["count"]}
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeAlias, cast, overload

from lo_kvs.kvs import codec
from lo_kvs.kvs.codec import Json
from lo_kvs.stream_analytics.engine.fold import Event, Reducer, ReducerFunction
from lo_kvs.stream_analytics.engine.scope import KeyedReducer
from lo_kvs.stream_analytics.engine.session import Session
from lo_kvs.stream_analytics.fields import (
    EventField,
    Field,
    KeyField,
    KeyStateType,
    Scope,
    ScopeFieldError,
)
from lo_kvs.stream_analytics.keys import (
    fully_qualified_function_name,
    make_key,
    parse_key,
)
from lo_kvs.stream_analytics.keys_from_json import make_key_from_json
from lo_kvs.stream_analytics.limits import timeout_fault

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

STUDENT_SCOPE: Final = Scope([KeyField.STUDENT])


class Process(Protocol):
    """What a reducer becomes for one source of events: `await process(event, fields)`."""

    def __call__(
        self, event: Event, event_fields: Mapping[str, Any] | None = None
    ) -> Awaitable[Json]: ...


#: A decorated reducer: `process = await reducer(metadata)`.
DecoratedReducer: TypeAlias = Callable[[Mapping[str, Any] | None], Awaitable[Process]]


#: What `inspect` shows of a decorated reducer, instead of the function's (event, state).
_SIGNATURE: Final = inspect.Signature(
    [
        inspect.Parameter(
            "metadata",
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=None,
            annotation=Mapping[str, Any] | None,
        )
    ],
    return_annotation=Process,
)


@overload
def kvs_pipeline(null_state: ReducerFunction, /) -> DecoratedReducer: ...


@overload
def kvs_pipeline(
    null_state: Json = None,
    scope: Iterable[Field] | None = None,
    module_override: str | None = None,
    qualname_override: str | None = None,
    *,
    timeout: float | None = None,
) -> Callable[[ReducerFunction], DecoratedReducer]: ...


def kvs_pipeline(
    null_state: Json | ReducerFunction = None,
    scope: Iterable[Field] | None = None,
    module_override: str | None = None,
    qualname_override: str | None = None,
    *,
    timeout: float | None = None,
) -> Callable[[ReducerFunction], DecoratedReducer] | DecoratedReducer:
    """Make a reducer of `async (event, state) -> (internal, external)`.

    null_state   the state before the first event; each first event gets a copy of its own
    scope        the fields that tell one state from another; default: the student
    …_override   stand in keys instead of the function's module and qualname
    timeout      seconds that the function may take for one event, if it awaits; then the event
                 fails with `ReducerTimedOut`. Default: the setting `reducer_timeout`

    Of what the function returns, the object `False`, and only it, means "do not write this
    half". The function may change the state it is given. It may run more than once on an
    event, when another writer was faster, so it must be a function of (event, state).

    Without parentheses, `@kvs_pipeline` has the null state `None` and all other defaults.
    `inspect.signature` of a reducer is that of its use, `(metadata=None)`;
    `inspect.unwrap` returns the function.

    The result is used as `process = await reducer(metadata)`, for one source of events, and
    `external = await process(event, event_fields)`, once for each event. `process` returns
    once both halves are committed, together; see `Engine.process` for what it returns and
    raises. A scope's field that has no value raises `ScopeFieldError` at event time.

    Raises `NotJSON` for a null state that is none, `TypeError` for what is no coroutine
    function, `ScopeFieldError` for a scope that holds something other than fields, `ValueError`
    for a timeout that is not a number of seconds.
    """
    if inspect.isfunction(null_state):
        others = (scope, module_override, qualname_override, timeout)
        return _without_parentheses(kvs_pipeline, null_state, others)
    null = codec.encode(cast("Json", null_state))
    fields = _checked_scope(scope)
    for override in (module_override, qualname_override):
        if override is not None and "," in override:
            raise ScopeFieldError(f"a name in keys cannot have a comma, got {override!r}")
    fault = timeout_fault(timeout)
    if fault is not None:
        raise ValueError(f"timeout: {fault}")

    def decorator(function: ReducerFunction) -> DecoratedReducer:
        if not inspect.iscoroutinefunction(inspect.unwrap(function)):
            raise TypeError(f"a reducer must be an `async def` of (event, state), got {function!r}")

        @functools.wraps(function)
        async def reducer(metadata: Mapping[str, Any] | None = None) -> Process:
            return _Source(keyed, metadata).process

        reducer.__dict__.update(_kvs_module=module_override, _kvs_qualname=qualname_override)
        reducer.__dict__["__signature__"] = _SIGNATURE
        name = fully_qualified_function_name(reducer)
        keyed = reducer.__dict__["_kvs_keyed"] = KeyedReducer(
            Reducer(name, function, null, timeout), fields
        )
        return reducer

    return decorator


@overload
def student_event_reducer(null_state: ReducerFunction, /) -> DecoratedReducer: ...


@overload
def student_event_reducer(
    null_state: Json = None,
    scope: Iterable[Field] | None = STUDENT_SCOPE,
    module_override: str | None = None,
    qualname_override: str | None = None,
    *,
    timeout: float | None = None,
) -> Callable[[ReducerFunction], DecoratedReducer]: ...


def student_event_reducer(
    null_state: Json | ReducerFunction = None,
    scope: Iterable[Field] | None = STUDENT_SCOPE,
    module_override: str | None = None,
    qualname_override: str | None = None,
    *,
    timeout: float | None = None,
) -> Callable[[ReducerFunction], DecoratedReducer] | DecoratedReducer:
    """`kvs_pipeline` with a state for each student, unless `scope` says otherwise."""
    if inspect.isfunction(null_state):
        others = (
            None if scope is STUDENT_SCOPE else scope,
            module_override,
            qualname_override,
            timeout,
        )
        return _without_parentheses(student_event_reducer, null_state, others)
    return kvs_pipeline(
        cast("Json", null_state), scope, module_override, qualname_override, timeout=timeout
    )


def _without_parentheses(
    decorator: Callable[..., Any], function: ReducerFunction, others: Iterable[object]
) -> DecoratedReducer:
    """`@decorator` on a function. With other arguments, the function cannot be the null state."""
    name = getattr(decorator, "__name__", "kvs_pipeline")
    if any(each is not None for each in others):
        raise TypeError(
            f"the null state cannot be a function: write `@{name}(null_state=..., ...)` above "
            f"the function, got {function!r}"
        )
    return cast("DecoratedReducer", decorator()(function))


class _Source(Session):
    """A session, and its `process`, a method: a function of its own for each of a thousand
    sources would take several times the memory, and with that of the processor's caches.

    It is no part of `Session`, as a coroutine that is compiled is none to `inspect`.
    """

    __slots__ = ()

    async def process(self, event: Event, event_fields: Mapping[str, Any] | None = None) -> Json:
        """Reduce and commit `event`."""
        return await self.submit(event, event_fields)


def _checked_scope(scope: Iterable[Field] | None) -> Scope:
    fields = STUDENT_SCOPE if scope is None else Scope(scope)
    for field in fields:
        if not isinstance(field, KeyField | EventField):
            raise ScopeFieldError(f"a scope holds KeyFields and EventFields, got {field!r}")
    return fields
