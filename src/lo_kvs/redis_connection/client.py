"""RedisConnection: a client of Redis for each event loop, as the stores have it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

from lo_kvs import host
from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import factory
from lo_kvs.redis_connection.settings import RedisSettings
from lo_kvs.settings.shown import label, word_shown

if TYPE_CHECKING:
    from redis.asyncio import Redis


class RedisConnection:
    """One client for each event loop, made at its first use there.

    A client's sockets belong to the loop that opened them, so a second loop, or the
    process on the other side of a fork, gets a client of its own. What is still open when a
    loop ends, as `asyncio.run` ends it, is closed with the loop.

    bounded  as `factory.client` has it; not by default: stores have deadlines of their own
    in_vain  attempts that brought no definite answer, as those who use it count them
    """

    def __init__(self, redis_settings: RedisSettings, *, bounded: bool = False) -> None:
        self.settings = redis_settings
        self._bounded = bounded
        self.failed_attempts = 0
        self._clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[int, Redis, AsyncGenerator[None, None]]
        ] = weakref.WeakKeyDictionary()

    def client(self) -> Redis:
        """The running loop's client. Nothing is connected before the first command."""
        loop = asyncio.get_running_loop()
        known = self._clients.get(loop)
        if known is not None and known[0] == os.getpid():
            return known[1]
        client = factory.client(self.settings, bounded=self._bounded)
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


def default_settings() -> RedisSettings:
    """What the `redis_connection` block of the loaded settings says; raises StartupCheck."""
    return RedisSettings.from_mapping(host.settings().get("redis_connection"))


def named_settings(name: str | None) -> RedisSettings:
    """What the block `name` of `redis_connections` says; `None`: the default connection.

    Raises StartupCheck with the faults of the block, or with the names that there are.
    """
    if name is None:
        return default_settings()
    blocks = host.settings().get("redis_connections")
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
