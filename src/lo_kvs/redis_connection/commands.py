"""Plain Redis commands on the default connection, the block `redis_connection`.

For programs that use Redis directly; the stores do not use them. Each function runs one command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection.client import RedisConnection, default_settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

_default: RedisConnection | None = None


async def connect() -> None:
    """Connect with the current settings. `connection()` calls it the first time."""
    global _default  # noqa: PLW0603 - the one connection that the coroutines below share
    wanted = default_settings()
    if _default is None or _default.settings != wanted:
        if _default is not None:
            await _default.aclose()
        _default = RedisConnection(wanted, bounded=True)
    await _default.client().ping()


async def connection() -> Redis:
    """The default connection's client, for the running event loop."""
    if _default is None:
        await connect()
    if _default is None:
        raise StartupCheck("redis_connection: connect() did not connect")
    return _default.client()


async def keys() -> list[str]:
    """Every key that is UTF-8 text, read with SCAN, in no particular order."""
    client = await connection()
    found = {key async for key in client.scan_iter(count=1000)}
    return [text for key in found if (text := _text(key)) is not None]


async def get(key: str) -> bytes | None:
    """The bytes at `key`, or `None` if it is absent."""
    return cast("bytes | None", await (await connection()).get(key))


async def mget(keys: Sequence[str]) -> list[bytes | None]:
    """The bytes at each key, in the order of `keys`; `None` if absent."""
    if not keys:
        return []
    return cast("list[bytes | None]", await (await connection()).mget(list(keys)))


async def set(  # noqa: A001 - the name that callers know
    key: str, value: str | bytes, expiry: float | None = None
) -> None:
    """Set `key` to a text, for `expiry` seconds if given, otherwise permanently."""
    px = None if expiry is None else max(1, round(expiry * 1000))
    await (await connection()).set(key, value, px=px)


async def delete(key: str) -> int:
    """Remove `key`. Returns the number of removed keys: 0 or 1."""
    removed: int = await (await connection()).delete(key)
    return removed


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None
