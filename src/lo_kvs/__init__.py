"""Exactly-once state for event reducers, native to Redis.

    import lo_kvs

    @lo_kvs.student_event_reducer(null_state={"count": 0})
    async def event_count(event, state):
        state["count"] += 1
        return state, {"count": state["count"]}

    lo_kvs.configure("creds.yaml")
    store = lo_kvs.KVS()

Everything public is listed in `__all__`; docs/api.md describes it on one page.
"""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from lo_kvs import compiled as _compiled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lo_kvs.kvs import (
        KVS,
        Change,
        ClearRefused,
        ClusterDown,
        Conflict,
        ConnectionLost,
        CorruptValue,
        EphemeralRedisKVS,
        FilesystemKVS,
        Guard,
        InMemoryKVS,
        InvalidArgument,
        InvalidKey,
        Json,
        KVSError,
        KVSRouter,
        MissingKVSParameters,
        NoPrimary,
        NotJSON,
        NotPermitted,
        NotReplicated,
        NotStarted,
        Outcome,
        OutcomeUnknown,
        OutOfMemory,
        PersistentRedisKVS,
        ReadOnlyServer,
        Refused,
        ServerBusy,
        ServerLoading,
        Store,
        StoreClosed,
        TimedOut,
        TLSFailed,
        TooFewReplicas,
        Unavailable,
        WrongType,
    )
    from lo_kvs.prestartup import StartupCheck
    from lo_kvs.redis_connection import RedisSettings
    from lo_kvs.settings import Source
    from lo_kvs.stream_analytics.engine.scope import BadEvent
    from lo_kvs.stream_analytics.errors import ReducerTimedOut
    from lo_kvs.stream_analytics.fields import (
        EventField,
        KeyField,
        KeyStateType,
        Scope,
        ScopeFieldError,
    )
    from lo_kvs.stream_analytics.helpers import kvs_pipeline, student_event_reducer
    from lo_kvs.stream_analytics.keys import make_key, parse_key
    from lo_kvs.stream_analytics.keys_from_json import SourceNotAllowed, make_key_from_json
    from lo_kvs.stream_analytics.pipeline import BadReducers, Pipeline
    from lo_kvs.stream_analytics.query import Missing, Row, states

    __version__: str

__all__ = [
    "KVS",
    "BadEvent",
    "BadReducers",
    "Change",
    "ClearRefused",
    "ClusterDown",
    "Conflict",
    "ConnectionLost",
    "CorruptValue",
    "EphemeralRedisKVS",
    "EventField",
    "FilesystemKVS",
    "Guard",
    "InMemoryKVS",
    "InvalidArgument",
    "InvalidKey",
    "Json",
    "KVSError",
    "KVSRouter",
    "KeyField",
    "KeyStateType",
    "Missing",
    "MissingKVSParameters",
    "NoPrimary",
    "NotJSON",
    "NotPermitted",
    "NotReplicated",
    "NotStarted",
    "OutOfMemory",
    "Outcome",
    "OutcomeUnknown",
    "PersistentRedisKVS",
    "Pipeline",
    "ReadOnlyServer",
    "RedisSettings",
    "ReducerTimedOut",
    "Refused",
    "Row",
    "Scope",
    "ScopeFieldError",
    "ServerBusy",
    "ServerLoading",
    "SourceNotAllowed",
    "StartupCheck",
    "Store",
    "StoreClosed",
    "TLSFailed",
    "TimedOut",
    "TooFewReplicas",
    "Unavailable",
    "WrongType",
    "__version__",
    "configure",
    "kvs_pipeline",
    "make_key",
    "make_key_from_json",
    "parse_key",
    "states",
    "student_event_reducer",
]

#: Where the public names are defined that are not in `lo_kvs.kvs`. A module is imported when one
#: of its names is first used.
_MODULES: Final = {
    "lo_kvs.prestartup": ("StartupCheck",),
    "lo_kvs.redis_connection": ("RedisSettings",),
    "lo_kvs.stream_analytics.engine.scope": ("BadEvent",),
    "lo_kvs.stream_analytics.errors": ("ReducerTimedOut",),
    "lo_kvs.stream_analytics.fields": (
        "EventField",
        "KeyField",
        "KeyStateType",
        "Scope",
        "ScopeFieldError",
    ),
    "lo_kvs.stream_analytics.helpers": ("kvs_pipeline", "student_event_reducer"),
    "lo_kvs.stream_analytics.keys": ("make_key", "parse_key"),
    "lo_kvs.stream_analytics.keys_from_json": ("SourceNotAllowed", "make_key_from_json"),
    "lo_kvs.stream_analytics.pipeline": ("BadReducers", "Pipeline"),
    "lo_kvs.stream_analytics.query": ("Missing", "Row", "states"),
}
_compiled.install()  # before any module that may be compiled

_HOME: Final = {
    **{name: "lo_kvs.kvs" for name in __all__ if name not in {"__version__", "configure"}},
    **{name: module for module, names in _MODULES.items() for name in names},
}


if not TYPE_CHECKING:  # a type checker reports names that are not there

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            try:
                return metadata.version("lo-kvs")
            except metadata.PackageNotFoundError:
                raise AttributeError("lo_kvs has no __version__: it is not installed") from None
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Public(ModuleType):
    """Sets public names where they are defined: `lo_kvs.KVS = router` takes effect everywhere."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME:
            setattr(importlib.import_module(_HOME[name]), name, value)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in _HOME:
            delattr(importlib.import_module(_HOME[name]), name)
        else:
            super().__delattr__(name)


sys.modules[__name__].__class__ = _Public


def configure(source: Source, overlays: Source | Iterable[Source] = ()) -> None:
    """Load the settings, run the startup checks, and open the stores of `KVS`.

    source    the path of a creds.yaml (or `.pmss`) file, or a mapping with the same content:
              the blocks `kvs`, `redis_connection` and `reducers`
    overlays  more of them, the strongest first

    Call it once, before `KVS()`. A later call loads other settings; stores whose settings did
    not change stay open. The checks connect to the Redis servers, for about a second at most.

    Raises `StartupCheck` with every fault. If the settings cannot be loaded, nothing has changed;
    if a check fails, the settings are loaded and `KVS` has the stores that it had before.

        lo_kvs.configure({"kvs": {"default": {"type": "filesystem", "path": "states"}}})
    """
    from lo_kvs import host

    host.use_own()
    importlib.import_module("lo_kvs.kvs")  # registers its startup check
    importlib.import_module("lo_kvs.stream_analytics.limits")  # and this one too
    from lo_kvs.prestartup import startup_checks_and_init
    from lo_kvs.settings import load_settings

    load_settings(source, overlays)
    startup_checks_and_init()
