"""Keys of reducer state: builds and parses them, and escapes values from events.

A key has the form `<Internal|External>,<module>.<qualname>[,<field>:<value>…]`, fields sorted
by name. Values are written unchanged, except for a comma that would start another field: a
`doc_id` of `D,EventField.tab_id:T` becomes `D%2CEventField.tab_id:T`. Text that already looks
like such an escape gets one more `25`. Different values always give different keys.

A value from an event or a browser has at most 1,024 bytes, and its key 8,192: each key is kept
in memory several times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from lo_kvs.kvs.errors import InvalidKey, shorten
from lo_kvs.stream_analytics.fields import (
    EventField,
    Field,
    KeyField,
    KeyStateType,
    ScopeFieldError,
)

#: The longest value from an event or a browser, and the longest key with one, in bytes of UTF-8.
ID_BYTES_MAX: Final = 1024
KEY_BYTES_MAX: Final = 8192

_KEY_FIELDS = "|".join(field.value for field in KeyField)
_SEPARATOR = re.compile(rf",((?:{_KEY_FIELDS}|EventField\.[^,:]+):)")
# The start of a field. The rest of an event field's name is left out here: it can contain escaped
# text itself, and whether a comma is escaped must not depend on whether the next one is.
_FIELD = rf"(?:(?:{_KEY_FIELDS}):|EventField\.)"
_FORGED = re.compile(rf",(?={_FIELD})")
_ESCAPED = re.compile(rf"%(?=(?:25)*2C{_FIELD})")
_FORGED_ESCAPED = re.compile(rf"%2C(?={_FIELD})")
_ESCAPED_TWICE = re.compile(rf"%25(?=(?:25)*2C{_FIELD})")


class KeyParts(NamedTuple):
    """The parts of a reducer's key. `fields` maps names, as written in the key, to values."""

    state_type: KeyStateType
    reducer: str
    fields: dict[str, str]


def fully_qualified_function_name(func: Callable[..., object]) -> str:
    """`<module>.<qualname>` of a reducer, as used in keys.

    Overrides passed to `kvs_pipeline` apply; a decorated reducer has the name of the function
    that it wraps.
    """
    module = getattr(func, "_kvs_module", None) or func.__module__
    qualname = getattr(func, "_kvs_qualname", None) or func.__qualname__
    return f"{module}.{qualname}"


def make_key(
    func: Callable[..., object] | str,
    key_dict: Mapping[Field, object],
    state_type: KeyStateType,
) -> str:
    """The key of one state of the reducer `func`, a function or a qualified name.

    `key_dict` maps the fields of the scope to their values, which are converted to text.
    Raises `ScopeFieldError` if it contains something other than a field.
    """
    name = func if isinstance(func, str) else fully_qualified_function_name(func)
    if not isinstance(state_type, KeyStateType):
        raise ScopeFieldError(f"expected a KeyStateType, got {state_type!r}")
    for field in key_dict:
        if not isinstance(field, KeyField | EventField):
            raise ScopeFieldError(f"expected a KeyField or an EventField, got {field!r}")
    selector = sorted((field.name, value) for field, value in key_dict.items())
    parts = "".join(f",{n}:{escape(made_text(value))}" for n, value in selector)
    return state_type.value + "," + name + parts


def bounded_key(
    func: Callable[..., object] | str,
    key_dict: Mapping[Field, object],
    state_type: KeyStateType,
) -> str:
    """`make_key` for values from events and browsers.

    Raises `InvalidKey` if a value has more than `ID_BYTES_MAX` bytes, or the key more than
    `KEY_BYTES_MAX`.
    """
    for field, value in key_dict.items():
        if isinstance(field, KeyField | EventField):
            _check_length(field.name, made_text(value), ID_BYTES_MAX)
    key = make_key(func, key_dict, state_type)
    _check_length("the key", key, KEY_BYTES_MAX)
    return key


def made_text(value: object) -> str:
    """The text of a value in keys. Raises `InvalidKey` if Python cannot convert it."""
    try:
        return str(value)
    except (ValueError, RecursionError) as error:  # 5,000 digits; lists within lists
        kind = type(value).__name__
        raise InvalidKey(kind, f"the {kind} cannot be converted to text ({error})") from None


def parse_key(key: str) -> KeyParts | None:
    """The parts of a reducer's key, or `None` for any other key.

    The inverse of `make_key`: `parse_key(make_key(f, fields, t))` returns all three.
    """
    kind, comma, rest = key.partition(",")
    if not comma or kind not in ("Internal", "External"):
        return None
    reducer, *selector = _SEPARATOR.split(rest)
    names = (name[:-1] for name in selector[::2])
    values = (unescape(value) for value in selector[1::2])
    return KeyParts(KeyStateType(kind), reducer, dict(zip(names, values, strict=True)))


def escape(value: str) -> str:
    """`value` escaped for a key: it cannot start another field there."""
    if "," not in value and "%" not in value:  # the usual value needs no regex
        return value
    return _FORGED.sub("%2C", _ESCAPED.sub("%25", value))


def unescape(text: str) -> str:
    """The value that `escape` turned into `text`."""
    if "%" not in text:
        return text
    return _ESCAPED_TWICE.sub("%", _FORGED_ESCAPED.sub(",", text))


def _check_length(name: str, text: str, most: int) -> None:
    if 4 * len(text) <= most:  # a character has four bytes at most
        return
    length = len(text.encode(errors="surrogatepass"))
    if length > most:
        raise InvalidKey(
            text, f"{shorten(name)} has {length:,} bytes; at most {most:,} are allowed"
        )
