"""Modules under a second name, for programs written for the Learning Observer.

The package `learning_observer` of this project consists of such modules. A Learning Observer
that uses this package's stores has copies of some of them (docs/differences.md).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

from lo_kvs import host

#: These two may be another package's own; all others need to know which ones count.
_OF_THE_HOST: Final = ("lo_kvs.settings", "lo_kvs.prestartup")


def forward(name: str, target: str) -> None:
    """Make the module `name` another name of the module `target`. It is the module's last line.

    Attributes are looked up in `target` each time, and set and deleted there:
    `learning_observer.kvs.KVS = router` takes effect for reducers too. The module is never a
    package, so no submodule of `target` is loaded a second time under another name.
    """
    if target not in _OF_THE_HOST:
        host.use(name.partition(".")[0])
    importlib.import_module(target)
    module = sys.modules[name]
    for own in [each for each in vars(module) if not _is_special(each)]:
        del vars(module)[own]  # what the file imports would hide the target's names
    vars(module)[host.FORWARDS_TO] = target
    module.__class__ = _Forward


class _Forward(ModuleType):
    """A module without attributes of its own, except for those of the import system."""

    def __getattr__(self, name: str) -> Any:
        if _is_special(name) and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_target(self), name)

    def __setattr__(self, name: str, value: object) -> None:
        if _is_special(name):
            super().__setattr__(name, value)
        else:
            setattr(_target(self), name, value)

    def __delattr__(self, name: str) -> None:
        if _is_special(name):
            super().__delattr__(name)
        else:
            delattr(_target(self), name)

    def __dir__(self) -> list[str]:
        return list(getattr(self, "__all__", None) or dir(_target(self)))


def _target(module: ModuleType) -> ModuleType:
    return sys.modules[vars(module)[host.FORWARDS_TO]]


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
