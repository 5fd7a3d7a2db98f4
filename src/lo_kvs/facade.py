"""Modules under a second name, for programs written against the Learning Observer.

The package `learning_observer` of this project consists of such modules, and a Learning
Observer that uses this package's stores has some of them (docs/differences.md).
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from lo_kvs import host


def forward(name: str, target: str) -> None:
    """Let the module `name` be another name of the module `target`.

    Its attributes are those of `target` at the time when they are looked up, and whoever sets
    or deletes one does so there: `learning_observer.kvs.KVS = router` counts for reducers as
    well. The submodules of `target` are not reached this way, so none is loaded twice.
    """
    package = name.partition(".")[0]
    if not target.startswith(("lo_kvs.settings", "lo_kvs.prestartup")):
        host.use(package)
    module = sys.modules[name]
    module.__dict__["_target"] = importlib.import_module(target)
    module.__class__ = _Forward


class _Forward(ModuleType):
    """A module without attributes of its own, but for those of the import system."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_target"], name)

    def __setattr__(self, name: str, value: object) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            setattr(self.__dict__["_target"], name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__dict__["_target"], name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.__dict__["_target"])})
