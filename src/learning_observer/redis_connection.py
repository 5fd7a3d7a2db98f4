"""Clients of Redis, one for each event loop, and plain commands on the default connection.

`RedisConnection` is what the stores have. The coroutines below run one command each on the
connection that the `redis_connection` block of the settings describes; the stores do not use
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from learning_observer import settings, settings_packages  # noqa: F401 - refuses old packages
from learning_observer.prestartup import StartupCheck
from learning_observer.redis_settings import RedisSettings
from learning_observer.settings_shown import label, word_shown

if TYPE_CHECKING:
    from redis.asyncio import Redis

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


class RedisConnection:
    """One client for each event loop, made at its first use there.

    A client's sockets belong to the loop that opened them, so a second loop, or the
    process on the other side of a fork, gets a client of its own. What is still open when a
    loop ends, as `asyncio.run` ends it, is closed with the loop.

    bounded  as `RedisSettings.client` has it; not by default: stores have deadlines of their own
    in_vain  attempts that brought no definite answer, as those who use it count them
    """

    def __init__(self, redis_settings: RedisSettings, *, bounded: bool = False) -> None:
        self.settings = redis_settings
        self._bounded = bounded
        self.in_vain = 0
        self._clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[int, Redis, AsyncGenerator[None, None]]
        ] = weakref.WeakKeyDictionary()

    def client(self) -> Redis:
        """The running loop's client. Nothing is connected before the first command."""
        loop = asyncio.get_running_loop()
        known = self._clients.get(loop)
        if known is not None and known[0] == os.getpid():
            return known[1]
        client = self.settings.client(bounded=self._bounded)
        end = self._closed_at_the_end(client)
        with contextlib.suppress(StopIteration):
            end.asend(None).send(None)  # up to its `yield`: the loop now knows of it
        self._clients[loop] = (os.getpid(), client, end)
        return client

    def is_open(self) -> bool:
        """Whether the running loop has its client: from the first use until the loop ends."""
        return asyncio.get_running_loop() in self._clients

    async def aclose(self) -> None:
        """Close the running loop's client and its connections."""
        known = self._clients.get(asyncio.get_running_loop())
        if known is not None and known[0] == os.getpid():
            await known[2].aclose()

    async def _closed_at_the_end(self, client: Redis) -> AsyncGenerator[None, None]:
        # The one thing that a loop does when it ends: it closes the generators begun in it.
        try:
            yield
        finally:
            self._clients.pop(asyncio.get_running_loop(), None)
            await _close(client)


async def _close(client: Redis) -> None:
    """Close all connections of a client, also where the caller is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            # It has a task for each connection: one that is cancelled before it has begun
            # closes nothing. One that has begun has closed its connection, and only waits.
            await client.aclose()
        except asyncio.CancelledError as error:
            cancelled = error
        else:
            break
    if cancelled is not None:
        raise cancelled


_default: RedisConnection | None = None


def default_settings() -> RedisSettings:
    """What the `redis_connection` block of the loaded settings says; raises StartupCheck."""
    return RedisSettings.from_mapping(settings.settings.get("redis_connection"))


def named_settings(name: str | None) -> RedisSettings:
    """What the block `name` of `redis_connections` says; `None`: the default connection.

    Raises StartupCheck with the faults of the block, or with the names that there are.
    """
    if name is None:
        return default_settings()
    blocks = settings.settings.get("redis_connections")
    if blocks is None:
        blocks = {}
    if not isinstance(blocks, Mapping):
        raise StartupCheck(
            "redis_connections: expected a mapping of names to options, "
            f"got {type(blocks).__name__}"
        )
    if name not in blocks:
        known = ", ".join(label(str(each)) for each in blocks) or "none yet"
        raise StartupCheck(
            f"redis_connections: there is no {word_shown(name)}; known: {known}. Add it "
            "there, or leave `connection` out for the one in redis_connection"
        )
    return RedisSettings.from_mapping(blocks[name], where=f"redis_connections.{label(name)}")


async def connect() -> None:
    """Connect as the settings say now. `connection()` does it by itself the first time."""
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
    """Every key that is UTF-8 text, by SCAN, in no order."""
    client = await connection()
    found = {key async for key in client.scan_iter(count=1000)}
    return [text for key in found if (text := _text(key)) is not None]


async def get(key: str) -> bytes | None:
    """The bytes at `key`, or `None` where it is absent."""
    return cast("bytes | None", await (await connection()).get(key))


async def mget(keys: Sequence[str]) -> list[bytes | None]:
    """The bytes at each key, in the order of `keys`; `None` where absent."""
    if not keys:
        return []
    return cast("list[bytes | None]", await (await connection()).mget(list(keys)))


async def set(  # noqa: A001 - the name that callers know
    key: str, value: str | bytes, expiry: float | None = None
) -> None:
    """Put text under `key`, for `expiry` seconds where given, else for good."""
    px = None if expiry is None else max(1, round(expiry * 1000))
    await (await connection()).set(key, value, px=px)


async def delete(key: str) -> int:
    """Remove `key`. Returns how many keys that were: 0 or 1."""
    removed: int = await (await connection()).delete(key)
    return removed


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None
