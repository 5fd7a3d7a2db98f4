"""Redis connections: settings, clients, and plain commands on the default connection."""

from __future__ import annotations

from lo_kvs import dependencies  # noqa: F401 - first: refuses packages that are too old
from lo_kvs.redis_connection.client import RedisConnection, default_settings, named_settings
from lo_kvs.redis_connection.commands import connect, connection, delete, get, keys, mget, set  # noqa: A004 - the name that callers know
from lo_kvs.redis_connection.settings import RedisSettings

__all__ = [
    "RedisConnection",
    "RedisSettings",
    "connect",
    "connection",
    "default_settings",
    "delete",
    "get",
    "keys",
    "mget",
    "named_settings",
    "set",
]
