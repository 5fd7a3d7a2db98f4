"""The key-value store: `KVS()` is the default store, `KVS.<name>()` another configured one.

from lo_kvs import kvs

store = kvs.KVS()
await store.set("key", {"any": "JSON"})
value = await store["key"]
"""

from lo_kvs import dependencies  # noqa: F401 - first: refuses packages that are too old
from lo_kvs.kvs.batching.deadlines import Deadline, RetryBudget
from lo_kvs.kvs.changes import Change, Conflict, Guard, Outcome
from lo_kvs.kvs.codec import Json
from lo_kvs.kvs.errors import (
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
    TLSFailed,
    TooFewReplicas,
    Unavailable,
    WrongType,
)
from lo_kvs.kvs.filesystem.store import FilesystemKVS
from lo_kvs.kvs.memory import InMemoryKVS
from lo_kvs.kvs.redis.store import EphemeralRedisKVS, PersistentRedisKVS
from lo_kvs.kvs.router import KVS, KVS_MAP, KVSRouter, clear, kvs_startup_check
from lo_kvs.kvs.store import Store

__all__ = [
    "KVS",
    "KVS_MAP",
    "Change",
    "ClearRefused",
    "ClusterDown",
    "Conflict",
    "ConnectionLost",
    "CorruptValue",
    "Deadline",
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
    "PersistentRedisKVS",
    "ReadOnlyServer",
    "Refused",
    "RetryBudget",
    "ServerBusy",
    "ServerLoading",
    "Store",
    "StoreClosed",
    "TLSFailed",
    "TimedOut",
    "TooFewReplicas",
    "Unavailable",
    "WrongType",
    "clear",
    "kvs_startup_check",
]
