"""Loads the settings: `creds.yaml`, with overlays.

    load_settings("creds.yaml", overlays=["site.pmss", "class.yaml"])
    settings["kvs"], settings["redis_connection"]

`settings` is one dict for the life of the process: every load replaces its content, so
`from lo_kvs.settings import settings` stays valid. It is empty before the first load;
`is_loaded()` distinguishes that from a file without settings. A failed load does not change it.

Overlays cascade like style sheets: the first one that contains a setting wins, and all of them
override creds.yaml. Mappings are merged name by name, and so are the entries of `kvs`, in any of
their forms; any other value is replaced as a whole. A null over a mapping or a list changes
nothing; over an option of a `kvs` entry it removes the option, which an overlay with another
`type` may need.
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
    first. The content is kept as written, except where files are merged: a `kvs` block that
    occurs in two of them becomes a mapping.

    Raises `StartupCheck` that lists the errors of all files; its text never contains values.
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
    """The name of a source for messages, and its content. Source 0 is the base."""
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
        raise StartupCheck(f"{label}: invalid path: {error}") from None
    label = str(path)
    if path.suffix == ".pmss":
        return label, read_pmss(_text(path), label)
    if number and path.suffix not in (".yaml", ".yml"):
        raise StartupCheck(f"{label}: an overlay must be a .yaml, .yml or .pmss file")
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
    """The text of a UTF-8 file, without a byte order mark at its start."""
    try:
        content = _content(path)
    except FileNotFoundError:
        reason = f"no such file (looked for {path.absolute()})"
    except (OSError, ValueError) as error:
        # ValueError: a path with a NUL in it
        reason = f"cannot be read: {getattr(error, 'strerror', None) or 'not a valid path'}"
    else:
        if content is None:
            reason = "is not a regular file: name a settings file"
        elif len(content) > _BYTES_MAX:
            reason = f"is larger than {_BYTES_MAX:,} bytes: this is not a settings file"
        else:
            try:
                return content.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                line = content.count(b"\n", 0, error.start) + 1
                reason = f"line {line} is not valid UTF-8: save the file in that encoding"
    raise StartupCheck(f"{path}: {reason}")


def _content(path: Path) -> bytes | None:
    """The content of a regular file, up to one byte over the limit; `None` for anything else."""
    # Opening a pipe without a writer would block.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        return file.read(_BYTES_MAX + 1) if stat.S_ISREG(mode) else None


def _copied(value: Any, label: str) -> Any:
    """A copy of the mappings and lists in `value`: the caller cannot change the settings."""
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
        # Each YAML alias counts: ten lines can expand to 10^9 values.
        fault = f"has more than {_VALUES_MAX:,} values, including those that `*` repeats"
    raise StartupCheck(f"{label}: {fault}")


class _TooLarge(Exception):
    """There are more values than settings can have."""


def _unify_kvs(layers: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Convert the `kvs` blocks to mappings, which can be merged. Returns the errors."""
    faults: list[str] = []
    given = [(label, content) for label, content in layers if content.get("kvs") is not None]
    if len(given) < 2:
        return []  # nothing to merge: the form is kept
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
    """`under` merged with `over`, both at `path`."""
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
