"""The contract, run on every store that ships, and on the router."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis

from lo_kvs import settings
from lo_kvs.kvs import (
    KVS,
    EphemeralRedisKVS,
    FilesystemKVS,
    InMemoryKVS,
    PersistentRedisKVS,
    Store,
    kvs_startup_check,
)
from lo_kvs.kvs.filesystem.file_names import is_digest, path_of
from lo_kvs.kvs.redis.key_names import cluster_name
from lo_kvs.kvs.redis.protocol import commits
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import ClusterServers, StoreContract

LARGE_BYTES = 5_000_000  # more than a group of changes may have


class TestStub(StoreContract):
    large_bytes = LARGE_BYTES

    def make_store(self) -> Store:
        self.store = InMemoryKVS()
        return self.store

    def raw_get(self, key: str) -> bytes | None:
        return self.store._texts.get(key)

    def raw_set(self, key: str, data: bytes) -> None:
        self.store._texts[key] = data


class OnDisk(StoreContract):
    large_bytes = LARGE_BYTES
    reopens = True
    subdirs: ClassVar[bool]
    fsync: ClassVar[bool]

    @pytest.fixture(autouse=True)
    def place(self, fast_path: Path) -> None:
        self.folder = fast_path / "store"

    def make_store(self) -> Store:
        return FilesystemKVS(self.folder, subdirs=self.subdirs, fsync=self.fsync)

    def raw_get(self, key: str) -> bytes | None:
        file = self.folder / path_of(key, subdirs=self.subdirs)
        return file.read_bytes() if file.exists() else None

    def raw_set(self, key: str, data: bytes) -> None:
        path = path_of(key, subdirs=self.subdirs)
        assert not is_digest(path)
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)


class TestFilesystemFlat(OnDisk):
    subdirs = False
    fsync = True


class TestFilesystemSubdirs(OnDisk):
    subdirs = True
    fsync = False
    updates_per_writer = 100


class OnRedis(StoreContract):
    large_bytes = LARGE_BYTES
    reopens = True
    prefix: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def place(self, redis_url: str) -> Iterator[None]:
        self.where = RedisSettings(url=redis_url)
        with redis.Redis.from_url(redis_url) as client:
            self.client = client
            yield

    def raw_get(self, key: str) -> bytes | None:
        data = self.client.get(self.prefix + key)
        assert data is None or isinstance(data, bytes)
        return data

    def raw_set(self, key: str, data: bytes) -> None:
        self.client.set(self.prefix + key, data)

    def raw_ttl_ms(self, key: str) -> int | None:
        ttl_ms = self.client.pttl(self.prefix + key)
        assert isinstance(ttl_ms, int)
        assert ttl_ms != -2, f"{key!r} is absent"
        return None if ttl_ms == -1 else ttl_ms

    def raw_set_ttl_ms(self, key: str, ttl_ms: int) -> None:
        assert self.client.pexpire(self.prefix + key, ttl_ms) == 1


class TestRedis(OnRedis):
    clear_needs_everything = True

    def make_store(self) -> Store:
        return PersistentRedisKVS(connection=self.where)


class TestRedisWithPrefix(OnRedis):
    prefix = "lo:*[é]:"
    updates_per_writer = 100

    def make_store(self) -> Store:
        return PersistentRedisKVS(prefix=self.prefix, connection=self.where)


class TestRedisEphemeral(OnRedis):
    clear_needs_everything = True
    ttl_s = 30

    def make_store(self) -> Store:
        return EphemeralRedisKVS(30, connection=self.where)


class AllAreLarge:
    """Every change is made by a transaction."""

    @pytest.fixture(autouse=True)
    def all_are_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commits, "LARGE_BYTES", 0)


class ByTransactions(AllAreLarge, OnRedis):
    @pytest.fixture(autouse=True)
    def no_scripts(self, place: None) -> Iterator[None]:
        stats: Any = self.client.info("commandstats")
        yield
        after: Any = self.client.info("commandstats")
        for command in ("cmdstat_evalsha", "cmdstat_eval"):
            assert after.get(command) == stats.get(command)


class TestRedisByTransactions(ByTransactions):
    clear_needs_everything = True

    def make_store(self) -> Store:
        return PersistentRedisKVS(connection=self.where)


class TestRedisEphemeralByTransactions(ByTransactions):
    prefix = "large:"
    ttl_s = 30

    def make_store(self) -> Store:
        return EphemeralRedisKVS(30, prefix=self.prefix, connection=self.where)


class OnCluster(StoreContract):
    large_bytes = LARGE_BYTES
    reopens = True
    prefix: ClassVar[str] = ""
    updates_per_writer = 50  # each of them meets some conflicts

    @pytest.fixture(autouse=True)
    def place(self, cluster: ClusterServers) -> None:
        self.cluster = cluster
        self.where = RedisSettings(cluster=True, nodes=cluster.nodes)

    def on(self, key: str, command: str, *words: bytes | int) -> Any:
        name = (self.prefix + cluster_name(key)).encode()
        return self.cluster.on(name, command, *words)

    def raw_get(self, key: str) -> bytes | None:
        data = self.on(key, "GET")
        assert data is None or isinstance(data, bytes)
        return data

    def raw_set(self, key: str, data: bytes) -> None:
        self.on(key, "SET", data)

    def raw_ttl_ms(self, key: str) -> int | None:
        ttl_ms = self.on(key, "PTTL")
        assert isinstance(ttl_ms, int)
        assert ttl_ms != -2, f"{key!r} is absent"
        return None if ttl_ms == -1 else ttl_ms

    def raw_set_ttl_ms(self, key: str, ttl_ms: int) -> None:
        assert self.on(key, "PEXPIRE", ttl_ms) == 1


class TestCluster(OnCluster):
    clear_needs_everything = True

    def make_store(self) -> Store:
        return PersistentRedisKVS(connection=self.where)


class TestClusterEphemeralWithPrefix(OnCluster):
    prefix = "lo:*[é]:"
    ttl_s = 30

    def make_store(self) -> Store:
        return EphemeralRedisKVS(30, prefix=self.prefix, connection=self.where)


class TestClusterByTransactions(AllAreLarge, OnCluster):
    clear_needs_everything = True

    def make_store(self) -> Store:
        return PersistentRedisKVS(connection=self.where)


class Routed:
    """Stores come from `KVS`, as the settings say."""

    updates_per_writer = 50

    @pytest.fixture(autouse=True)
    def router(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(settings, "settings", {"kvs": {"default": {"type": "stub"}}})
        yield
        asyncio.run(KVS.aclose())

    def configure(self, kvs: object, redis_url: str | None = None) -> None:
        settings.settings["kvs"] = json.loads(json.dumps(kvs))
        if redis_url is not None:
            settings.settings["redis_connection"] = {"redis_url": redis_url}
        kvs_startup_check()


class TestRouterToStub(Routed, TestStub):
    def make_store(self) -> Store:
        self.configure({"default": {"type": "stub"}})
        store = KVS()
        assert isinstance(store, InMemoryKVS)
        self.store = store
        return store


class TestRouterToFilesystem(Routed, OnDisk):
    subdirs = True
    fsync = False

    def make_store(self) -> Store:
        files = {"type": "filesystem", "path": str(self.folder), "subdirs": True, "fsync": False}
        self.configure([["default", {"type": "stub"}], ["states", files]])
        store: Store = KVS.states()
        return store


class TestRouterToRedis(Routed, OnRedis):
    prefix = "r:"
    ttl_s = 45.5

    def make_store(self) -> Store:
        cache = {"type": "redis_ephemeral", "expiry": 45.5, "prefix": "r:"}
        self.configure({"default": cache}, self.where.url)
        return KVS()


class TestRouterToCluster(Routed, OnCluster):
    prefix = "r:"

    def make_store(self) -> Store:
        settings.settings["redis_connection"] = {
            "redis_cluster": True,
            "redis_nodes": list(self.where.nodes),
        }
        self.configure({"default": {"type": "redis", "prefix": "r:"}})
        return KVS()
