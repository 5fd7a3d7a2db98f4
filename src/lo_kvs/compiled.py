"""Which modules are compiled, and whether they run compiled: all of them, or none.

A compiled engine passes objects to a compiled codec by their C structure, so a mix of compiled and
pure modules is slower than either and is not tested. This module decides once for a process,
when the first of `MODULES` is imported:

    compiled  every extension is there and can be loaded
    pure      `LOKVS_PURE=1` is set, or one extension is missing or cannot be loaded; a warning
              is logged once, with the reason. Nothing fails.

In the pure case a finder in front of Python's own loads the `.py` of a module although there is
an extension beside it. Modules with another name for each form (`codec/_c.pyx` and
`codec/_py.py`) ask `is_used()`.

Internal: `lo_kvs.kvs.codec.COMPILED` says which form runs, and `lo-kvs check` shows it.
Imports nothing of lo_kvs.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

#: Only compiled: each has a pure counterpart with a name of its own.
PYX_MODULES: Final = (
    "lo_kvs.kvs.codec._c",
    "lo_kvs.kvs.redis.protocol._packing",
    "lo_kvs.kvs.redis.protocol._words",
    "lo_kvs.stream_analytics.engine._call",
)
#: Compiled from a `.py`, which also runs as it is.
PY_MODULES: Final = frozenset(
    {
        "lo_kvs.kvs.batching.inbox",
        "lo_kvs.stream_analytics.engine.backpressure",
        "lo_kvs.stream_analytics.engine.batch",
        "lo_kvs.stream_analytics.engine.cache",
        "lo_kvs.stream_analytics.engine.deadlines",
        "lo_kvs.stream_analytics.engine.engine",
        "lo_kvs.stream_analytics.engine.event_queue",
        "lo_kvs.stream_analytics.engine.fold",
        "lo_kvs.stream_analytics.engine.route",
        "lo_kvs.stream_analytics.engine.scope",
        "lo_kvs.stream_analytics.engine.session",
        "lo_kvs.stream_analytics.engine.state_slot",
        "lo_kvs.stream_analytics.engine.wakeups",
        "lo_kvs.stream_analytics.pipeline",
    }
)
#: All of them, as in setup.py.
MODULES: Final = (*PYX_MODULES, *sorted(PY_MODULES))
#: Environment variables that ask for pure Python with the value 1; the second is the older name.
SWITCHES: Final = ("LOKVS_PURE", "LOKVS_PURE_CODEC")

_logger = logging.getLogger(__name__)
_lock = threading.Lock()


def is_used() -> bool:
    """Whether the compiled modules run in this process. The first call decides it."""
    return _decide()[0]


def reason() -> str:
    """Why the pure modules run; "" where the compiled ones do."""
    return _decide()[1]


def _decide() -> tuple[bool, str]:
    with _lock:  # or two threads would both warn
        return _choice()


@functools.cache
def _choice() -> tuple[bool, str]:
    for switch in SWITCHES:
        if os.environ.get(switch) == "1":
            return False, f"{switch}=1"
    missing = [name for name in MODULES if _file_of(name) is None]
    if len(missing) == len(MODULES):
        why = "no module is compiled for this Python"
    elif missing:
        why = f"not compiled for this Python: {', '.join(missing)}"
    else:
        why = "; ".join(filter(None, map(_load_fault, MODULES)))
    if why:
        _logger.warning(
            "lo_kvs runs in pure Python, 2-5 times slower (%s). Install a C compiler and the "
            "package again, or set LOKVS_PURE=1 if this is intended",
            why,
        )
    return not why, why


def _file_of(name: str) -> Path | None:
    """The extension file of a module, if it is built for this Python."""
    base = Path(__file__).parent.joinpath(*name.split(".")[1:])
    files = (base.with_name(base.name + suffix) for suffix in EXTENSION_SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _load_fault(name: str) -> str:
    """Load the extension's library without running the module; "" or why that failed."""
    spec = spec_from_file_location(name, _file_of(name))
    try:
        if spec is None:
            return f"{name} has no loader"
        module_from_spec(spec)
    except (ImportError, SystemError) as error:
        return f"{name} cannot be loaded: {error}"
    return ""


class _PureFinder(MetaPathFinder):
    """Finds the `.py` of a module that may be compiled, where the pure modules run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in PY_MODULES or is_used():
            return None
        for folder in path or ():
            source = Path(folder, name.rpartition(".")[2] + ".py")
            if source.is_file():
                return spec_from_file_location(name, source)
        return None


def install() -> None:
    """Put the finder in front of Python's own. `lo_kvs` calls it, before any other module."""
    if not any(isinstance(finder, _PureFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PureFinder())
