"""Every kind of store that ships, opened by its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import redis

from lo_kvs.kvs import (
    EphemeralRedisKVS,
    FilesystemKVS,
    InMemoryKVS,
    PersistentRedisKVS,
    Store,
)
from lo_kvs.redis_connection import RedisSettings

STORES = ["stub", "filesystem", "subdirs", "redis", "redis with a prefix", "redis_ephemeral"]


def opening(name: str, folder: Path, url: str) -> tuple[Callable[[], Store], Callable[[], None]]:
    """What opens a store, and what empties its place, past the store."""
    where = RedisSettings(url=url)
    stubs: list[Store] = []

    def open_stub() -> Store:
        if not stubs:
            stubs.append(InMemoryKVS())
        return stubs[0]

    def flush() -> None:
        with redis.Redis.from_url(url) as client:
            client.flushall()

    match name:
        case "stub":
            return open_stub, stubs.clear
        case "filesystem" | "subdirs":
            return (
                lambda: FilesystemKVS(folder, subdirs=name == "subdirs", fsync=False),
                lambda: shutil.rmtree(folder, ignore_errors=True),
            )
        case "redis":
            return lambda: PersistentRedisKVS(connection=where), flush
        case "redis_ephemeral":
            return lambda: EphemeralRedisKVS(3600, connection=where), flush
    return lambda: PersistentRedisKVS(prefix="p:*{é}:", connection=where), flush
