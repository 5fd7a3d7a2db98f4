"""Read the options of a `redis_connection` block, and convert each to its type.

Messages never show a value: it may be a password, or contain one by mistake.
"""

from __future__ import annotations

import datetime as dt
import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from lo_kvs.redis_connection.hosts import address, host_fault
from lo_kvs.redis_connection.url import BadURL, read_url
from lo_kvs.settings.paths import expand_path
from lo_kvs.settings.shown import HIDDEN, is_path, name_shown

PREFIX: Final = "redis_"

#: The types of options by the annotations of their fields, in words for messages.
ADDRESSES: Final = "tuple[str, ...]"
_WANTED: Final = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    ADDRESSES: "a list of texts, each host:port",
}
#: The types of values, likewise.
_FOUND: Final = {
    bool: "true or false",
    int: "a number",
    float: "a number with a fraction",
    str: "other text (not shown, it may be a secret)",
    list: "a list",
    dict: "a mapping",
    dt.date: "a date",
    dt.datetime: "a date",
}
#: Decimal, and the same in YAML 1.1, in YAML 1.2 and in Python: `010` is not.
_NUMBER: Final = re.compile(r"\s*[+-]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]+)?\s*", re.ASCII)
_NUMBER_LIKE: Final = re.compile(r"[+-]?[0-9][0-9a-fA-FxXoO_:.]{0,12}")


def read_options(
    block: Mapping[Any, Any], kinds: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The valid values of a block, by the names in `kinds`, and the faults of the others.

    kinds  for each option, without its prefix, the annotation of its field
    An option with the value null counts as absent.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for option, value in block.items():
        name = option.removeprefix(PREFIX) if isinstance(option, str) else ""
        if not isinstance(option, str) or not option.startswith(PREFIX) or name not in kinds:
            faults.append(_unknown(option, kinds))
        elif value is not None:
            try:
                values[name] = _typed(kinds[name].removesuffix(" | None"), value)
            except (ValueError, OverflowError):
                faults.append(_mismatch(option, kinds[name].removesuffix(" | None"), value))
    return values, faults


def text_faults(name: str, value: object) -> list[str]:
    """The faults of an option's text. They never contain the value."""
    if isinstance(value, tuple):
        return list(_address_faults(PREFIX + name, value))
    check = _CHECKS.get(name)
    return list(check(PREFIX + name, value)) if check is not None and isinstance(value, str) else []


def expanded(name: str, value: str) -> str:
    """The value of an option, with `~` and environment variables of a path replaced."""
    return str(expand_path(value)) if name in PATHS else value


def _unknown(option: object, kinds: Mapping[str, str]) -> str:
    text = re.match(r"\w*", option, re.ASCII) if isinstance(option, str) else None
    begin = text[0] if text is not None else ""
    if begin.removeprefix(PREFIX) in kinds and begin != option and begin.startswith(PREFIX):
        hint = f"; is a space missing after the colon of {begin}?"
        return f"unknown option {name_shown(option)}{hint}"
    near = difflib.get_close_matches(begin.removeprefix(PREFIX), kinds, 1)
    if isinstance(option, str) and not near and not begin.startswith(PREFIX):
        # After a comma in braces it may be the rest of a password.
        return (
            f"unknown option whose name does not start with {PREFIX} ({HIDDEN}); put quotes "
            "around values that contain a comma or a colon"
        )
    hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
    return f"unknown option {name_shown(option)}{hint}"


def _mismatch(option: str, kind: str, value: object) -> str:
    if kind == "str" and isinstance(value, bool | float | dt.date):
        return f"{option} expects text, got {_found(value)}: put quotes around it"
    if kind in {"int", "float"} and isinstance(value, str) and _NUMBER_LIKE.fullmatch(value):
        return f"{option} expects a plain decimal number, like 6379: no 0 before it, no `_`, no `:`"
    return f"{option} expects {_WANTED[kind]}, got {_found(value)}"


def _found(value: object) -> str:
    return _FOUND.get(type(value), type(value).__name__)


def _typed(kind: str, value: object) -> object:
    """`value` converted to the type of an option; numbers may be text, as in PMSS."""
    if kind == "bool":
        if isinstance(value, bool):
            return value
        raise ValueError(value)
    if kind == ADDRESSES:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise ValueError(value)
        return tuple(stripped for item in items if (stripped := item.strip()))
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)  # noqa: TRY004 - the caller reports it with the option's name
    if kind == "str":
        if isinstance(value, float):
            raise ValueError(value)  # 1e5 or 1.10: the original text is lost
        return str(value)
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError(value)
    if kind == "int":
        return int(value) if not isinstance(value, float) or value.is_integer() else int("no")
    return float(value)


def _host_faults(option: str, host: str) -> Iterator[str]:
    if (fault := host_fault(host)) is not None:
        yield f"{option} {fault}"


def _path_faults(option: str, path: str) -> Iterator[str]:
    if not path.strip():
        yield f"{option} is empty: set it to the path of the file, or remove the option"
    elif "-----BEGIN" in path:
        yield f"{option} contains the text of a file: write it to a file, and give the path"
    elif not is_path(path):
        yield f"{option} is not the path of a file (not shown, it may contain a secret)"
    else:
        try:
            expand_path(path)
        except ValueError as error:
            yield f"{option}: {error}"


def _socket_faults(option: str, path: str) -> Iterator[str]:
    if "://" in path:
        yield f"{option} contains a URL: use redis_url for it, or give only the path"
    else:
        yield from _path_faults(option, path)


def _service_faults(option: str, service: str) -> Iterator[str]:
    if service and re.fullmatch(r"[\w.-]+", service) is None:
        yield f"{option} is not a valid service name: use letters, digits, `.`, `_` and `-`"


def _url_faults(_: str, url: str) -> Iterator[str]:
    try:
        fields = read_url(url).fields
    except BadURL as bad:
        yield from bad.faults
        return
    for name in sorted(PATHS & fields.keys()):
        yield from _path_faults(f"redis_{name} in redis_url", fields[name])


def _address_faults(option: str, addresses: tuple[str, ...]) -> Iterator[str]:
    if not addresses:
        yield f"{option} is empty: list at least one host:port, or remove the option"
    for at, item in enumerate(addresses, 1):
        try:
            address(item)
        except ValueError:
            yield (
                f"{option}: item {at} is not a host:port; write it like redis.example:6379, "
                "with a port up to 65535 and no password"
            )


#: Options that are lists of addresses.
LISTS: Final = frozenset({"sentinels", "nodes"})
#: Options that are paths of files.
PATHS: Final = frozenset({"socket", "ca", "certificate", "key"})
_CHECKS: Final[Mapping[str, Callable[[str, str], Iterator[str]]]] = MappingProxyType(
    {
        "host": _host_faults,
        "socket": _socket_faults,
        "ca": _path_faults,
        "certificate": _path_faults,
        "key": _path_faults,
        "sentinel_service": _service_faults,
        "url": _url_faults,
    }
)
