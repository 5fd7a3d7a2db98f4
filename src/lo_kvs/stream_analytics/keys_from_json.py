"""Keys that browsers request by JSON, and the list of reducers whose states they may read.

`make_key_from_json` rejects every `source` that is not on a list. Otherwise each user could
read every value of the store by naming the right reducer. The list is the first of these that
exists:

    1. the argument `sources`
    2. the setting `allowed_sources` in the `reducers` block
    3. in a Learning Observer, the sources of `module_loader.course_aggregators()`
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from lo_kvs import host
from lo_kvs.kvs.errors import shorten
from lo_kvs.prestartup import StartupCheck
from lo_kvs.stream_analytics.fields import (
    EventField,
    Field,
    KeyField,
    KeyStateType,
    ScopeFieldError,
)
from lo_kvs.stream_analytics.keys import bounded_key, fully_qualified_function_name

#: A reducer, or its qualified name.
Source: TypeAlias = Callable[..., Any] | str

#: The module of a Learning Observer that knows which reducers its dashboards show.
MODULE_LOADER: Final = "learning_observer.module_loader"


class SourceNotAllowed(ScopeFieldError):
    """A browser requested a reducer that is not on the list of allowed sources."""


def make_key_from_json(js: Mapping[str, Any], sources: Iterable[Source] | None = None) -> str:
    """The key that a browser requests by JSON.

    `{"source": "module.reducer", "KeyField.STUDENT": "S", "EventField.doc_id": "D"}` is the
    Internal state of that reducer; `"state_type": "External"` requests the other half.

    sources  the allowed reducers, as functions or qualified names. Default: the setting
             `allowed_sources`, else the sources of the Learning Observer's course aggregators.
             With none of these, every source is rejected

    Raises `SourceNotAllowed` for a source that is not on the list; `ScopeFieldError` if `js` is
    not an object, for a missing source, an unknown field, or a value that is not text or a
    number; `InvalidKey` for a value that is too long. It does not check whether the caller may
    read the states of that student, class or document: check that first.
    """
    if not isinstance(js, Mapping):
        raise ScopeFieldError(f"expected an object, got {type(js).__name__}")
    asked = dict(js)
    source = asked.pop("source", None)
    if not isinstance(source, str) or not source or "," in source:
        raise ScopeFieldError(
            f"`source` must name a reducer (module.function), got {_brief(source)}"
        )
    _check_source(source, sources)
    wanted = asked.pop("state_type", KeyStateType.INTERNAL.value)
    if not isinstance(wanted, str) or wanted not in {each.value for each in KeyStateType}:
        raise ScopeFieldError(f"`state_type` must be Internal or External, got {_brief(wanted)}")
    fields: dict[Field, object] = {}
    for name, value in asked.items():
        field = _field_named(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ScopeFieldError(
                f"{shorten(name)[1:-1]}: expected text or a number, got {_brief(value)}"
            )
        fields[field] = value
    return bounded_key(source, fields, KeyStateType(wanted))


def check_allowed_sources(value: object) -> str | None:
    """The problem with the setting `allowed_sources`, or `None`. `None` as the value: not set."""
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not all(
        isinstance(each, str) and each for each in value
    ):
        return f"expected a list of reducers' names (module.function), got {shorten(value)}"
    return None


def _check_source(source: str, sources: Iterable[Source] | None) -> None:
    where = "`sources`"
    if isinstance(sources, str):
        raise TypeError(f"sources must be a collection of reducers or names, got {sources!r}")
    if sources is None:
        where = "the setting `reducers.allowed_sources`"
        sources = _from_settings()
    if sources is None:
        where = "the sources of the course aggregators"
        sources = _from_aggregators()
    if sources is None:
        raise SourceNotAllowed(
            f"`source` {shorten(source)} is not allowed: there is no list of allowed sources. List "
            "the reducers that browsers may read in the setting `reducers.allowed_sources`, or "
            "pass `sources`"
        )
    if source not in {_name(each) for each in sources}:
        raise SourceNotAllowed(f"`source` {shorten(source)} is not allowed: it is not in {where}")


def _from_settings() -> Iterable[Source] | None:
    block = host.settings().get("reducers")
    allowed: Any = block.get("allowed_sources") if isinstance(block, Mapping) else None
    if allowed is None:
        return None
    fault = check_allowed_sources(allowed)
    if fault is not None:
        raise StartupCheck(f"reducers.allowed_sources: {fault}")
    names: Iterable[Source] = allowed
    return names


def _from_aggregators() -> Iterable[Source] | None:
    """The sources that dashboards show; `None` outside a Learning Observer."""
    package = MODULE_LOADER.partition(".")[0]
    if package not in sys.modules:
        return None  # if it is installed, this is another program
    try:
        loader: Any = importlib.import_module(MODULE_LOADER)
    except ModuleNotFoundError as error:
        if error.name not in {MODULE_LOADER, package}:
            raise  # the module exists, but one of its imports does not
        return None
    aggregators = getattr(loader, "course_aggregators", None)
    if aggregators is None:
        return None
    return [source for each in aggregators().values() for source in each.get("sources") or ()]


def _name(source: Source) -> str | None:
    """The qualified name of a source; `None` if it has none, which allows nothing."""
    if isinstance(source, str):
        return source
    return fully_qualified_function_name(source) if hasattr(source, "__qualname__") else None


def _field_named(name: object) -> Field:
    kind, _, rest = name.partition(".") if isinstance(name, str) else ("", "", "")
    if kind == "KeyField" and rest in KeyField.__members__:
        return KeyField[rest]
    if kind == "EventField":
        return EventField(rest)
    known = ", ".join(f"KeyField.{field.name}" for field in KeyField)
    raise ScopeFieldError(f"unknown field {_brief(name)}; known: {known}, EventField.<name>")


def _brief(value: object) -> str:
    """A value from a browser, for messages: shortened text, or the name of any other type.

    `repr` of a number of 5,000 digits, or of a deeply nested value, raises.
    """
    return shorten(value) if isinstance(value, str) else type(value).__name__
