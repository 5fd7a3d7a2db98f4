"""Read and validate the `kvs` block of the settings: the options of each entry, and all errors.

The block is a mapping, a list of pairs (`[[name, {...}], …]`) or a list of one-entry mappings.
Nothing is opened here.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lo_kvs.kvs.changes import RESERVED_PREFIX
from lo_kvs.kvs.redis.batch_limits import CHANGES_MAX, LANES_MAX
from lo_kvs.settings.paths import expand_path
from lo_kvs.settings.shown import (
    holds_login,
    is_path,
    label,
    name_shown,
    value_shown,
    word_shown,
)

#: The longest wait for replicas; a larger value is probably a mistake.
WAIT_TIMEOUT_MAX_S: Final = 3_600
#: Ten years. Redis itself counts milliseconds in 64 bits, so far more would overflow.
EXPIRY_MAX_S: Final = 315_360_000


@dataclass(frozen=True)
class Option:
    """One option of an entry.

    fault  returns what is wrong with a value, or `None`
    read   converts a valid value for the store
    """

    fault: Callable[[object], str | None]
    required: bool = False
    read: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Entry:
    """A valid entry: its name, the type of its store, and the options it was given."""

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=dict)


def _path_fault(value: object) -> str | None:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value).strip():
        return f"expected the path of a folder, got {value_shown(value)}"
    if not is_path(os.fspath(value)):
        return "expected the path of a folder, got a URL or more than a path (not shown)"
    try:
        expand_path(value)
    except ValueError as error:
        return str(error)
    return None


def _path(value: Any) -> str:
    return str(expand_path(value))


def _flag_fault(value: object) -> str | None:
    return None if isinstance(value, bool) else f"expected true or false, got {value_shown(value)}"


def _prefix_fault(value: object) -> str | None:
    if not isinstance(value, str):
        return f"expected text, got {value_shown(value)}"
    if holds_login(value):
        return "expected a prefix for keys, got a URL with a login (not shown)"
    if value.startswith(RESERVED_PREFIX) or (value and RESERVED_PREFIX.startswith(value)):
        begin = value[: len(RESERVED_PREFIX)]  # what follows may be anything
        return f"{RESERVED_PREFIX!r} is reserved for the store itself; {begin!r} could lead there"
    return None


def _connection_fault(value: object) -> str | None:
    if isinstance(value, str) and value:
        return None
    return f"expected a name from redis_connections, got {value_shown(value)}"


def _expiry_fault(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        within = False
    else:
        within = 0.001 <= value <= EXPIRY_MAX_S  # NaN is not
    if within:
        return None
    return f"expected seconds, from 0.001 to {EXPIRY_MAX_S:,}, got {value_shown(value)}"


def _count_fault(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return None
    return f"expected a whole number, 0 or more, got {value_shown(value)}"


def _wait_fault(value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0.001 <= value <= WAIT_TIMEOUT_MAX_S:
        return None
    return f"expected seconds, from 0.001 to {WAIT_TIMEOUT_MAX_S:,}, got {value_shown(value)}"


def _between(least: int, most: int) -> Callable[[object], str | None]:
    def fault(value: object) -> str | None:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return None
        return f"expected a whole number, {least} to {most:,}, got {value_shown(value)}"

    return fault


#: The types whose stores are on a Redis server.
REDIS_TYPES: Final = frozenset({"redis", "redis_ephemeral"})
#: The options of both. `require`: whether problems found on the server prevent the start.
ON_REDIS: Final[Mapping[str, Option]] = {
    "prefix": Option(_prefix_fault),
    "connection": Option(_connection_fault),
    "require": Option(_flag_fault),
    "wait_replicas": Option(_count_fault),
    "wait_aof": Option(_flag_fault),
    "wait_timeout": Option(_wait_fault),
    "lanes": Option(_between(1, LANES_MAX)),
    "group_changes": Option(_between(1, CHANGES_MAX)),
}
OPTIONS: Final[Mapping[str, Mapping[str, Option]]] = {
    "stub": {},
    "redis_ephemeral": {"expiry": Option(_expiry_fault, required=True), **ON_REDIS},
    "redis": ON_REDIS,
    "filesystem": {
        "path": Option(_path_fault, required=True, read=_path),
        "subdirs": Option(_flag_fault),
        "fsync": Option(_flag_fault),
        "group": Option(_flag_fault),
    },
}


def read_block(
    block: object, *, is_reserved: Callable[[str], bool]
) -> tuple[list[Entry], list[str]]:
    """The valid entries of a `kvs` block, and the faults of all others.

    is_reserved  whether a name cannot be used, because the router has an attribute of that name
    """
    if block is None:
        return [], ["kvs: the section is missing; add it with an entry `default`"]
    if isinstance(block, str) or not isinstance(block, Mapping | list | tuple):
        got = type(block).__name__
        return [], [f"kvs: expected a mapping or a list of [name, options] pairs, got {got}"]
    faults: list[str] = []
    entries: dict[str, Entry] = {}
    seen: set[str] = set()
    for where, name, options in _pairs(block, faults):
        if not isinstance(name, str) or not name:
            faults.append(f"{where}: the name must be text, got {name_shown(name)}")
        elif name in seen:
            faults.append(f"kvs.{label(name)}: there is another entry with this name")
        else:
            seen.add(name)
            found = list(entry_faults(name, options, is_reserved=is_reserved))
            faults += found
            if not found:
                entries[name] = valid_entry(name, options)
    if "default" not in seen:
        faults.append("kvs.default: there is no default store; name one of the entries `default`")
    return list(entries.values()), faults


def valid_entry(name: str, options: Mapping[str, Any]) -> Entry:
    """The entry for valid options."""
    known = OPTIONS[options["type"]]
    given = {option: value for option, value in options.items() if option != "type"}
    for option, value in given.items():
        if (read := known[option].read) is not None:
            given[option] = read(value)
    return Entry(name, options["type"], given)


def connections_named(block: object) -> list[str | None]:
    """The connections that the entries on Redis use, each once; `None` is the default one.

    This includes entries with faults, so that all faults can be reported at once.
    """
    pairs = _pairs(block, []) if isinstance(block, Mapping | list | tuple) else ()
    named = (
        options.get("connection")
        for _, _, options in pairs
        if isinstance(options, Mapping)
        and str(options.get("type")) in REDIS_TYPES
        and isinstance(options.get("connection"), str | None)
    )
    return list(dict.fromkeys(named))


def entry_faults(
    name: str, options: object, *, is_reserved: Callable[[str], bool]
) -> Iterator[str]:
    """All faults of one entry; each starts with the name of the entry."""
    where = f"kvs.{label(name)}"
    if is_reserved(name):
        yield f"{where}: this name is reserved; choose another one"
    if not isinstance(options, Mapping):
        got = "nothing" if options is None else type(options).__name__
        yield f"{where}: expected a mapping with a `type`, got {got}"
        return
    kind = options.get("type")
    if kind is None:
        yield f"{where}: `type` is missing; known are {', '.join(OPTIONS)}"
        return
    if not isinstance(kind, str) or kind not in OPTIONS:
        yield f"{where}: unknown type {word_shown(kind)}{_nearest(kind, OPTIONS)}"
        return
    known = OPTIONS[kind]
    for option in options:
        if option != "type" and option not in known:
            yield f"{where}: {kind} has no option {name_shown(option)}{_nearest(option, known)}"
    for option, rule in known.items():
        if option not in options:
            if rule.required:
                yield f"{where}: `{option}` is missing; {kind} needs it"
        elif (fault := rule.fault(options[option])) is not None:
            yield f"{where}.{option}: {fault}"


def _nearest(word: object, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, known, 1) if isinstance(word, str) else []
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(known)}" if known else "; it has none"


def _pairs(
    block: Mapping[Any, Any] | Sequence[Any], faults: list[str]
) -> Iterator[tuple[str, object, Any]]:
    if isinstance(block, Mapping):
        for name, options in block.items():
            yield "kvs", name, options
        return
    for at, item in enumerate(block):
        if isinstance(item, Mapping) and len(item) == 1:
            ((name, options),) = item.items()
            yield f"kvs[{at}]", name, options
        elif isinstance(item, list | tuple) and len(item) == 2:
            yield f"kvs[{at}]", item[0], item[1]
        else:
            faults.append(f"kvs[{at}]: expected a pair [name, options], got {type(item).__name__}")
