"""Keys of reducer state: made, taken apart, and safe against what events carry.

A key reads `<Internal|External>,<module>.<qualname>[,<field>:<value>…]`, fields sorted by
name. Values stand as they are, except for a comma that would start another field: a
`doc_id` of `D,EventField.tab_id:T` becomes `D%2CEventField.tab_id:T`, and what already
looks like such an escape gets one `25` more. Different values always give different keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from learning_observer.stream_analytics.fields import (
    EventField,
    Field,
    KeyField,
    KeyStateType,
    ScopeFieldError,
)

_KEY_FIELDS = "|".join(field.value for field in KeyField)
_SEPARATOR = re.compile(rf",((?:{_KEY_FIELDS}|EventField\.[^,:]+):)")
# How a field begins. The rest of an event field's name is left out here: it can hold what is
# escaped itself, and whether a comma is escaped must not hang on whether the next one is.
_FIELD = rf"(?:(?:{_KEY_FIELDS}):|EventField\.)"
_FORGED = re.compile(rf",(?={_FIELD})")
_ESCAPED = re.compile(rf"%(?=(?:25)*2C{_FIELD})")
_FORGED_ESCAPED = re.compile(rf"%2C(?={_FIELD})")
_ESCAPED_TWICE = re.compile(rf"%25(?=(?:25)*2C{_FIELD})")


class KeyParts(NamedTuple):
    """What a reducer's key says. `fields` maps names, as they stand in the key, to values."""

    state_type: KeyStateType
    reducer: str
    fields: dict[str, str]


def fully_qualified_function_name(func: Callable[..., object]) -> str:
    """`<module>.<qualname>` of a reducer, as it stands in keys.

    Overrides that `kvs_pipeline` was given count; a decorated reducer has the name of the
    function inside it.
    """
    module = getattr(func, "_kvs_module", None) or func.__module__
    qualname = getattr(func, "_kvs_qualname", None) or func.__qualname__
    return f"{module}.{qualname}"


def make_key(
    func: Callable[..., object] | str,
    key_dict: Mapping[Field, object],
    state_type: KeyStateType,
) -> str:
    """The key of one state of the reducer `func` (or of its qualified name).

    `key_dict` maps the fields of the scope to their values, which are turned into text.
    Raises `ScopeFieldError` where something other than a field stands in it.
    """
    name = func if isinstance(func, str) else fully_qualified_function_name(func)
    if not isinstance(state_type, KeyStateType):
        raise ScopeFieldError(f"expected a KeyStateType, got {state_type!r}")
    for field in key_dict:
        if not isinstance(field, KeyField | EventField):
            raise ScopeFieldError(f"expected a KeyField or an EventField, got {field!r}")
    selector = sorted((field.name, value) for field, value in key_dict.items())
    return state_type.value + "," + name + "".join(f",{n}:{escape(str(v))}" for n, v in selector)


def make_key_from_json(js: Mapping[str, Any]) -> str:
    """The key that a browser asks for, from its JSON.

    `{"source": "module.reducer", "KeyField.STUDENT": "S", "EventField.doc_id": "D"}` is the
    Internal state of that reducer; `"state_type": "External"` asks for the other half.
    Raises `ScopeFieldError` for what is no object, a missing source, an unknown name, or a
    value that is no text or number. Whether the caller may read that state is not decided here.
    """
    if not isinstance(js, Mapping):
        raise ScopeFieldError(f"expected an object, got {type(js).__name__}")
    asked = dict(js)
    source = asked.pop("source", None)
    if not isinstance(source, str) or not source or "," in source:
        raise ScopeFieldError(f"`source` must name a reducer (module.function), got {source!r}")
    try:
        state_type = KeyStateType(asked.pop("state_type", "Internal"))
    except ValueError as error:
        raise ScopeFieldError(f"`state_type` must be Internal or External: {error}") from None
    fields: dict[Field, object] = {}
    for name, value in asked.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ScopeFieldError(f"{name}: expected text or a number, got {value!r}")
        fields[_field_named(name)] = value
    return make_key(source, fields, state_type)


def parse_key(key: str) -> KeyParts | None:
    """What a reducer's key says, or `None` for a key that no reducer made.

    The inverse of `make_key`: `parse_key(make_key(f, fields, t))` gives them all back.
    """
    kind, comma, rest = key.partition(",")
    if not comma or kind not in ("Internal", "External"):
        return None
    reducer, *selector = _SEPARATOR.split(rest)
    names = (name[:-1] for name in selector[::2])
    values = (unescape(value) for value in selector[1::2])
    return KeyParts(KeyStateType(kind), reducer, dict(zip(names, values, strict=True)))


def escape(value: str) -> str:
    """`value` as it stands in a key: it cannot start another field there."""
    if "," not in value and "%" not in value:  # the usual value pays for no regex
        return value
    return _FORGED.sub("%2C", _ESCAPED.sub("%25", value))


def unescape(text: str) -> str:
    """The value that `escape` made `text` of."""
    if "%" not in text:
        return text
    return _ESCAPED_TWICE.sub("%", _FORGED_ESCAPED.sub(",", text))


def _field_named(name: str) -> Field:
    kind, _, rest = name.partition(".")
    if kind == "KeyField" and rest in KeyField.__members__:
        return KeyField[rest]
    if kind == "EventField":
        return EventField(rest)
    known = ", ".join(f"KeyField.{field.name}" for field in KeyField)
    raise ScopeFieldError(f"{name!r} is no field; known are {known} and EventField.<name>")
