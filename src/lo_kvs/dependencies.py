"""Checks on import that the required packages are installed and recent enough.

A too old redis-py would otherwise cause an ImportError or an AttributeError somewhere later.
Raises `StartupCheck` that lists every package that is missing or too old, and what to install.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from lo_kvs.prestartup import StartupCheck

#: For each module: the package's name and its oldest supported version.
LEAST: Final = MappingProxyType(
    {
        "redis": ("redis", "8.1"),
        "hiredis": ("hiredis", "3.2"),
        "orjson": ("orjson", "3.10"),
        "yaml": ("pyyaml", "6"),
    }
)


def check_packages() -> None:
    """Raise `StartupCheck` if a package is missing or too old."""
    faults = list(_faults())
    if faults:
        raise StartupCheck("\n".join(faults))


def _faults() -> Iterator[str]:
    for module, (package, least) in LEAST.items():
        try:
            found = getattr(importlib.import_module(module), "__version__", None)
        except ImportError as error:
            what = f"{package} cannot be imported ({error})"
        else:
            if not isinstance(found, str) or _numbers(found) >= _numbers(least):
                continue
            what = f"{package} {found} is too old"
        yield f"{what}: {least} or later is needed; run pip install '{package}>={least}'"


def _numbers(version: str) -> list[int]:
    """The release numbers of a version, so that 3.10 sorts after 3.9; `1.0rc1` counts as 1.0."""
    release = re.match(r"[0-9]+(\.[0-9]+)*", version)
    return [int(part) for part in release[0].split(".")] if release is not None else []


check_packages()
