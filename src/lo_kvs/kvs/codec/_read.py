"""Exact decoding: slower, shared by the compiled and the pure codec, for what orjson cannot read.

orjson reads integers over 64 bits as floats, and refuses lone surrogates, NaN, Infinity and
1e400. Older data, written by the standard library's `json`, can contain all of these.
"""

from __future__ import annotations

import json
import re
from typing import Final

from lo_kvs.kvs.codec._write import Json

#: The maximum nesting of dicts and lists when decoding, the same as in orjson.
DEPTH_READ_MAX: Final = 1024

_decoder = json.JSONDecoder()
_after_blanks = re.compile(r"[^ \t\n\r]|\Z")


def read(data: bytes) -> Json:
    """The value of the JSON text `data`. Raises ValueError if it is not valid JSON."""
    text = data.decode("utf-8")
    try:
        value: Json = _decoder.decode(text)
    except RecursionError:
        # Python 3.11 counts the levels of the text together with the frames of the caller.
        return _read_deep(text)
    # Newer Pythons read deeper than orjson. Counting the brackets decides most cases.
    if text.count("[") + text.count("{") > DEPTH_READ_MAX and _is_too_deep(value):
        raise _too_deep()
    return value


def _read_deep(text: str) -> Json:
    """The same without recursion, for deeply nested text; `json` decodes the scalars."""
    inside: list[list[Json] | dict[str, Json]] = []  # the containers around `at`, outermost first
    keys: list[str] = []  # for each dict of them, the key whose value is being read
    at = 0
    while True:
        at = _skip(text, at)
        value: Json
        opened = text[at : at + 1]
        if opened in ("[", "{"):
            if len(inside) == DEPTH_READ_MAX:
                raise _too_deep()
            container: list[Json] | dict[str, Json] = [] if opened == "[" else {}
            at = _skip(text, at + 1)
            if text[at : at + 1] != _closing(container):
                inside.append(container)
                at = _next_value(text, at, container, keys)
                continue
            value = container
            at += 1
        else:
            value, at = _decoder.raw_decode(text, at)
        while inside:  # `value` is complete; it may be the last one of several containers
            parent = inside[-1]
            _add(parent, keys, value)
            at = _skip(text, at)
            mark = text[at : at + 1]
            if mark == ",":
                at = _next_value(text, at + 1, parent, keys)
                break
            if mark != _closing(parent):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
            value = inside.pop()
            at += 1
        else:
            if _skip(text, at) != len(text):
                raise json.JSONDecodeError("Extra data", text, at)
            return value


def _add(parent: list[Json] | dict[str, Json], keys: list[str], value: Json) -> None:
    if isinstance(parent, dict):
        parent[keys.pop()] = value
    else:
        parent.append(value)


def _next_value(text: str, at: int, parent: list[Json] | dict[str, Json], keys: list[str]) -> int:
    """The start of the next value of `parent`. In a dict, its key is read and put on `keys`."""
    if not isinstance(parent, dict):
        return at
    at = _skip(text, at)
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting a key in double quotes", text, at)
    key, at = _decoder.raw_decode(text, at)
    at = _skip(text, at)
    if text[at : at + 1] != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
    keys.append(key)
    return at + 1


def _skip(text: str, at: int) -> int:
    """The end of the whitespace that starts at `at`."""
    found = _after_blanks.search(text, at)
    return len(text) if found is None else found.start()


def _closing(container: list[Json] | dict[str, Json]) -> str:
    return "}" if isinstance(container, dict) else "]"


def _is_too_deep(value: Json) -> bool:
    level: list[Json] = [value]
    for _ in range(DEPTH_READ_MAX):
        below: list[Json] = []
        for member in level:
            if isinstance(member, list):
                below.extend(member)
            elif isinstance(member, dict):
                below.extend(member.values())
        level = below
    return any(isinstance(member, list | dict) for member in level)


def _too_deep() -> ValueError:
    return ValueError(f"nested more than {DEPTH_READ_MAX} deep")
