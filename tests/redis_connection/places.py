"""Helpers for the tests of connections: credentials and short cuts."""

from __future__ import annotations

from typing import Any

from lo_kvs.kvs import PersistentRedisKVS, Store
from lo_kvs.redis_connection import RedisSettings

USER = "reducers"
PASSWORD = "hunter2"


def tls_settings(port: int, **options: Any) -> RedisSettings:
    """A connection to a server of these tests, as the user of the stores."""
    given: dict[str, Any] = {
        "host": "localhost",
        "port": port,
        "username": USER,
        "password": PASSWORD,
        "tls": True,
        "timeout": 5.0,
        "retry_for": 10.0,
    }
    return RedisSettings(**given | options)


def one_more(value: Any) -> int:
    return int(value or 0) + 1


async def use(where: RedisSettings) -> None:
    """What a store does, once each."""
    async with PersistentRedisKVS(prefix="use:", connection=where) as store:
        await use_store(store)


async def use_store(store: Store) -> None:
    await store.clear()
    assert await store.update("counter", one_more) == 1
    assert await store.update("counter", one_more) == 2
    await store.set("large", "é" * 300_000)
    assert await store["large"] == "é" * 300_000
    assert sorted(await store.keys()) == ["counter", "large"]
