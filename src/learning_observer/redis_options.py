"""The values of a `redis_connection` block: each as the type that its option has.

Nothing here tells a value: any of them may be a password, or hold one by mistake.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Final

PREFIX: Final = "redis_"
PORT_MAX: Final = 65_535

#: The types of options, as their fields are annotated, in words for people.
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
}


def read_options(
    block: Mapping[Any, Any], kinds: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The values that a block gives, by the names in `kinds`, and the faults of all the others.

    kinds  for each option, without its prefix, the annotation of its field
    A null is as if the option were not there.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for option, value in block.items():
        name = str(option).removeprefix(PREFIX)
        if not str(option).startswith(PREFIX) or name not in kinds:
            near = difflib.get_close_matches(PREFIX + name, [PREFIX + k for k in kinds], 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            faults.append(f"unknown option {option!r}{hint}")
        elif value is not None:
            try:
                values[name] = _typed(kinds[name], value)
            except ValueError:
                wanted = _WANTED[kinds[name].removesuffix(" | None")]
                found = _FOUND.get(type(value), type(value).__name__)
                faults.append(f"{option} expects {wanted}, got {found}")
            else:
                if kinds[name] == ADDRESSES:
                    faults += _address_faults(str(option), values[name])
    return values, faults


def address(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, or of `[::1]:port`. Raises ValueError where it is none."""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host != bare
    if not colon or not bare or "@" in bare or "/" in bare or (":" in bare) != bracketed:
        raise ValueError("expected host:port")
    if not port.isascii() or not port.isdecimal() or not 0 < int(port) <= PORT_MAX:
        raise ValueError(f"expected a port from 1 to {PORT_MAX}")
    return bare, int(port)


def address_text(host: str, port: int) -> str:
    """What `address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _typed(kind: str, value: object) -> object:
    """`value` as the type that an option has; numbers may come as text, as PMSS has them."""
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
        raise ValueError(value)  # noqa: TRY004 - told with the option's name by the caller
    if kind == "int":
        return int(value) if not isinstance(value, float) or value.is_integer() else int("no")
    return float(value) if kind == "float" else str(value)


def _address_faults(option: str, addresses: tuple[str, ...]) -> Iterator[str]:
    if not addresses:
        yield f"{option} names no server: list one host:port or more, or take the option out"
    for at, item in enumerate(addresses, 1):
        try:
            address(item)
        except ValueError:
            yield (
                f"{option}: item {at} is no host:port; write it like redis.example:6379, "
                "with a port up to 65535 and no password"
            )
