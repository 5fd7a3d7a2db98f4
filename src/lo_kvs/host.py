"""Where settings and startup checks come from: from this package, or from a Learning Observer.

By default `lo_kvs.settings` and `lo_kvs.prestartup` count, also for programs that use the names
of the package `learning_observer` of this project: those are other names of the same modules.
In a Learning Observer whose stores are this package's (docs/differences.md), its own `settings`
and `prestartup` count, and its `StartupCheck` is raised. Stores and reducers ask here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple

#: The attribute of a module that is another name of a module of this package: that one's name.
FORWARDS_TO: Final = "__forwards_to__"


class _Host(NamedTuple):
    package: str
    settings: ModuleType
    prestartup: ModuleType


_host: _Host | None = None
_own = False


def use(package: str) -> None:
    """Take settings and startup checks from `<package>.settings` and `<package>.prestartup`.

    The errors of this package derive from that package's `StartupCheck`, so it must be called
    before most of `lo_kvs` is imported; `lo_kvs.facade` does. Raises `ImportError` if it is too
    late. After `use_own` it changes nothing.
    """
    global _host  # noqa: PLW0603 - one for the process
    if _own or _host is not None:
        return
    settings = importlib.import_module(f"{package}.settings")
    if vars(settings).get(FORWARDS_TO) == "lo_kvs.settings":
        return  # another name of our own
    prestartup = importlib.import_module(f"{package}.prestartup")
    ours = sys.modules.get("lo_kvs.prestartup")
    if ours is not None and ours.StartupCheck is not prestartup.StartupCheck:
        raise ImportError(
            f"lo_kvs was imported before {package}.kvs, so its errors are not the StartupCheck of "
            f"{package}.prestartup: import {package}.kvs first, where the program starts"
        )
    _host = _Host(package, settings, prestartup)


def use_own() -> None:
    """Keep the settings and startup checks of this package, whatever is imported later.

    `lo_kvs.configure` and the command line call it. Raises `RuntimeError` where those of
    another package are in use.
    """
    global _own  # noqa: PLW0603 - one for the process
    if _host is not None:
        raise RuntimeError(
            f"lo_kvs uses the settings and startup checks of {_host.package} here: load the "
            f"settings with {_host.package}.settings instead of lo_kvs.configure()"
        )
    _own = True


def settings() -> Mapping[str, Any]:
    """The settings as they are now; empty before the first load."""
    # Not imported here: settings are above this module, and without a load they are empty.
    module = sys.modules.get("lo_kvs.settings") if _host is None else _host.settings
    loaded = getattr(module, "settings", None)
    return loaded if isinstance(loaded, Mapping) else {}


def prestartup() -> ModuleType | None:
    """The other package's module with startup checks; `None`: this package's own count."""
    return None if _host is None else _host.prestartup
