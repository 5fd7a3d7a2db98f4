"""The settings of the system: `creds.yaml`, and overlays on it.

    load_settings("creds.yaml", overlays=["site.pmss", "class.yaml"])
    settings["kvs"], settings["redis_connection"]

`settings` is one dict for the life of the process: every load replaces its content, so
`from lo_kvs.settings import settings` stays good. It is empty before the first
load; `is_loaded()` tells that from a file without settings. A load that fails leaves it alone.

Overlays cascade like style sheets: the first that gives a setting wins, and each of them
wins over creds.yaml. Mappings are laid over one another name by name, and so are the entries
of `kvs`, whichever forms they have; any other value replaces the one below as a whole. A null
over a mapping or a list changes nothing; over an option of a `kvs` entry it takes the option
away, which an overlay with another `type` may need.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from lo_kvs.prestartup import StartupCheck
from lo_kvs.settings.paths import expand_path
from lo_kvs.settings.pmss_source import read_pmss
from lo_kvs.settings.shown import label as shown
from lo_kvs.settings.yaml_source import parse_yaml

Source = str | os.PathLike[str] | Mapping[str, Any]

_BYTES_MAX: Final = 1_000_000
_VALUES_MAX: Final = 100_000

settings: dict[str, Any] = {}
# The files that the settings came from, the weakest first: for messages.
sources: list[str] = []


def is_loaded() -> bool:
    """Whether settings were loaded, or put into `settings` by other means."""
    return bool(sources or settings)


def load_settings(source: Source, overlays: Source | Iterable[Source] = ()) -> dict[str, Any]:
    """Load `source`, with `overlays` over it, into `settings`, and return that dict.

    `source` is the path of a YAML file (or of a `.pmss` file), or a mapping, which is copied.
    `overlays` are paths that end in `.yaml`, `.yml` or `.pmss`, or mappings, the strongest
    first. The content comes through as it was written, but for what is laid over one another:
    a `kvs` block that two of them give becomes a mapping.

    Raises `StartupCheck` with the faults of all the files; values are never in its text.
    """
    if isinstance(overlays, (str, os.PathLike, Mapping)):
        overlays = [overlays]
    layers: list[tuple[str, dict[str, Any]]] = []
    faults: list[str] = []
    for number, layer in enumerate([source, *overlays]):
        try:
            layers.append(_read(layer, number))
        except StartupCheck as fault:
            faults.append(str(fault))
    if not faults:
        faults = _unify_kvs(layers)
    if faults:
        raise StartupCheck("\n".join(faults))
    merged: dict[str, Any] = {}
    ordered = layers[:1] + layers[:0:-1]  # the strongest overlay last
    for _, content in ordered:
        merged = _lay(content, merged, ())
    settings.clear()
    settings.update(merged)
    sources[:] = [label for label, _ in ordered]
    return settings


def _read(source: Source, number: int) -> tuple[str, dict[str, Any]]:
    """The name of a source for messages, and its content. Source 0 is what overlays lie on."""
    label = "the settings" if number == 0 else f"overlay {number}"
    if isinstance(source, Mapping):
        return label, _copied(source, label)
    if not isinstance(source, (str, os.PathLike)):
        raise StartupCheck(
            f"{label}: expected a path or a mapping, got {type(source).__name__}. "
            "Give the path of creds.yaml"
        )
    try:
        path = expand_path(source)
    except ValueError as error:
        raise StartupCheck(f"{label}: the path cannot be used: {error}") from None
    label = str(path)
    if path.suffix == ".pmss":
        return label, read_pmss(_text(path), label)
    if number and path.suffix not in (".yaml", ".yml"):
        raise StartupCheck(
            f"{label}: an overlay is a .yaml, .yml or .pmss file, and this is none of them"
        )
    content = parse_yaml(_text(path), label)
    if content is None and number:
        return label, {}
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise StartupCheck(
            f"{label}: expected a mapping of names to settings at the top (`kvs:` ...), "
            f"found {found}"
        )
    return label, _copied(content, label)


def _text(path: Path) -> str:
    """The text of a file. UTF-8; a byte order mark at its start is no part of it."""
    try:
        content = _content(path)
    except FileNotFoundError:
        reason = f"no such file (looked for {path.absolute()})"
    except (OSError, ValueError) as error:
        # ValueError: a path with a NUL in it
        reason = f"cannot be read: {getattr(error, 'strerror', None) or 'no valid path'}"
    else:
        if content is None:
            reason = "is not a regular file: give a file of settings"
        elif len(content) > _BYTES_MAX:
            reason = f"is larger than {_BYTES_MAX:,} bytes: that is no file of settings"
        else:
            try:
                return content.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = content.count(b"\n", 0, error.start) + 1
                reason = f"line {line} is no UTF-8 text: save the file in that encoding"
    raise StartupCheck(f"{path}: {reason}")


def _content(path: Path) -> bytes | None:
    """What a regular file holds, up to one byte over the limit; `None` for anything else."""
    # A pipe that nobody writes to would be waited for.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return file.read(_BYTES_MAX + 1) if stat.S_ISREG(mode) else None


def _copied(value: Any, label: str) -> Any:
    """A copy of the mappings and lists in `value`: nobody else can change the settings."""
    count = 0

    def copied(value: Any) -> Any:
        nonlocal count
        count += 1
        if count > _VALUES_MAX:
            raise _TooLarge
        if isinstance(value, Mapping):
            return {name: copied(item) for name, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(copied(item) for item in value)
        return value

    try:
        return copied(value)
    except RecursionError:
        fault = "is nested too deeply, or within itself"
    except _TooLarge:
        # An alias of YAML counts each time: ten lines can stand for a thousand million values.
        fault = f"holds more than {_VALUES_MAX:,} values, counting what `*` repeats"
    raise StartupCheck(f"{label}: {fault}")


class _TooLarge(Exception):
    """There are more values than settings can have."""


def _unify_kvs(layers: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Give the `kvs` blocks forms that can be laid over one another. Returns the faults."""
    faults: list[str] = []
    given = [(label, content) for label, content in layers if content.get("kvs") is not None]
    if len(given) < 2:
        return []  # nothing to merge: the form stays what it is
    for label, content in given:
        if isinstance(content["kvs"], dict):
            continue
        pairs = _pairs(content["kvs"])
        names = [name for name, _ in pairs]
        if not pairs:
            faults.append(
                f"{label}: `kvs` is neither a mapping of names to options nor a list of "
                "[name, options], so it cannot be merged with another file's"
            )
        elif len(set(names)) < len(names):
            twice = ", ".join(
                f"`{shown(name)}`" for name in sorted(set(names)) if names.count(name) > 1
            )
            faults.append(f"{label}: `kvs` has more than one entry {twice}: keep one of each")
        else:
            content["kvs"] = dict(pairs)
    return faults


def _pairs(block: Any) -> list[tuple[str, Any]]:
    """Names and options of a `kvs` list of pairs or of mappings with one name; else nothing."""
    pairs: list[tuple[str, Any]] = []
    for item in block if isinstance(block, (list, tuple)) else []:
        pair = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else item
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
            return []
        pairs.append((pair[0], pair[1]))
    return pairs


def _lay(over: dict[str, Any], under: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """`over` laid over `under`, both at `path`."""
    merged = dict(under)
    for name, value in over.items():
        below = under.get(name)
        if isinstance(value, dict) and isinstance(below, dict):
            merged[name] = _lay(value, below, (*path, name))
        elif value is not None or name not in under:
            merged[name] = value
        elif not isinstance(below, (dict, list, tuple)):
            if len(path) == 2 and path[0] == "kvs":  # an option of a store
                del merged[name]
            else:
                merged[name] = None
    return merged
