"""The key-value store: `KVS()` is the default store, `KVS.<name>()` another configured one.

from learning_observer import kvs

store = kvs.KVS()
await store.set("key", {"any": "JSON"})
value = await store["key"]
"""

from learning_observer import settings_packages  # noqa: F401 - first: refuses packages that are too old
from learning_observer.kvs.changes import Change, Conflict, Guard, Outcome
from learning_observer.kvs.codec import Json
from learning_observer.kvs.errors import (
    ClearRefused,
    ClusterDown,
    ConnectionLost,
    CorruptValue,
    InvalidArgument,
    InvalidKey,
    KVSError,
    MissingKVSParameters,
    NoPrimary,
    NotJSON,
    NotPermitted,
    NotReplicated,
    NotStarted,
    OutcomeUnknown,
    OutOfMemory,
    ReadOnlyServer,
    Refused,
    ServerBusy,
    ServerLoading,
    StoreClosed,
    TimedOut,
    TooFewReplicas,
    Unavailable,
    WrongType,
)
from learning_observer.kvs.filesystem import FilesystemKVS
from learning_observer.kvs.memory import InMemoryKVS
from learning_observer.kvs.patience import Patience, RetryBudget
from learning_observer.kvs.redis import EphemeralRedisKVS, PersistentRedisKVS
from learning_observer.kvs.router import KVS, KVS_MAP, KVSRouter, clear, kvs_startup_check
from learning_observer.kvs.store import Store

__all__ = [
    "KVS",
    "KVS_MAP",
    "Change",
    "ClearRefused",
    "ClusterDown",
    "Conflict",
    "ConnectionLost",
    "CorruptValue",
    "EphemeralRedisKVS",
    "FilesystemKVS",
    "Guard",
    "InMemoryKVS",
    "InvalidArgument",
    "InvalidKey",
    "Json",
    "KVSError",
    "KVSRouter",
    "MissingKVSParameters",
    "NoPrimary",
    "NotJSON",
    "NotPermitted",
    "NotReplicated",
    "NotStarted",
    "OutOfMemory",
    "Outcome",
    "OutcomeUnknown",
    "Patience",
    "PersistentRedisKVS",
    "ReadOnlyServer",
    "Refused",
    "RetryBudget",
    "ServerBusy",
    "ServerLoading",
    "Store",
    "StoreClosed",
    "TimedOut",
    "TooFewReplicas",
    "Unavailable",
    "WrongType",
    "clear",
    "kvs_startup_check",
]
