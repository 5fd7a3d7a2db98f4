"""The program that this package is part of: where settings and startup checks come from.

By itself the package has its own, `lo_kvs.settings` and `lo_kvs.prestartup`. Where its stores
and reducers replace those of a Learning Observer, that one's are used, and its `StartupCheck`
is the one that is raised. Stores and reducers take both from here and from nowhere else.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_settings: ModuleType | None = None
_prestartup: ModuleType | None = None


def use(package: str) -> None:
    """Take settings and startup checks from `<package>.settings` and `<package>.prestartup`.

    Call it before anything else of `lo_kvs` is imported: the errors derive from that package's
    `StartupCheck`. `lo_kvs.facade` does. Raises `ImportError` where it comes too late.
    """
    global _settings, _prestartup
    settings = importlib.import_module(f"{package}.settings")
    prestartup = importlib.import_module(f"{package}.prestartup")
    own = sys.modules.get("lo_kvs.prestartup")
    if own is not None and own.StartupCheck is not prestartup.StartupCheck:
        raise ImportError(
            f"lo_kvs was imported before {package}.kvs, and has startup checks of its own now: "
            f"import {package}.kvs first"
        )
    _settings, _prestartup = settings, prestartup


def settings() -> Mapping[str, Any]:
    """The settings as they are now, whoever loaded them; empty before the first load."""
    module = _settings or importlib.import_module("lo_kvs.settings")
    loaded = module.settings
    return loaded if isinstance(loaded, Mapping) else {}


def prestartup() -> ModuleType | None:
    """The module with the host's startup checks; `None`: this package's own are used."""
    return _prestartup
