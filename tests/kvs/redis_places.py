"""Short cuts for tests that look past the stores."""

from __future__ import annotations

import socket

import redis

from lo_kvs.redis_connection import RedisSettings


def settings_for(port: int, *, retry_for: float = 10.0, timeout: float = 5.0) -> RedisSettings:
    """The connection of a store to a server, or a proxy, on this machine."""
    return RedisSettings(host="127.0.0.1", port=port, retry_for=retry_for, timeout=timeout)


def reads_or_commits(request: bytes) -> bool:
    """Whether a request to a single server reads keys or makes changes: what a call is about."""
    return any(word in request for word in (b"MGET", b"EVAL", b"WATCH", b"MULTI"))


def raw_bytes(client: redis.Redis, key: str | bytes) -> bytes | None:
    """What is stored under `key`, a string."""
    data = client.get(key)
    assert data is None or isinstance(data, bytes)
    return data


def names(client: redis.Redis) -> set[bytes]:
    """Every key of the database."""
    return set(client.scan_iter(count=1_000))


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
