"""RedisConnection: one redis-py client per event loop, for the same server."""

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
    """One client for each event loop, created at its first use there.

    A client's sockets belong to the loop that opened them. So a second loop, or the child process
    after a fork, gets its own client. Open connections are closed when the loop is closed by
    `asyncio.run`.

    bounded          see `factory.client`; default: no, because stores have their own deadlines
    failed_attempts  the number of attempts without a definite answer, counted by its users
    """

    def __init__(self, redis_settings: RedisSettings, *, bounded: bool = False) -> None:
        self.settings = redis_settings
        self._bounded = bounded
        self.failed_attempts = 0
        self._clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[int, Redis, AsyncGenerator[None, None]]
        ] = weakref.WeakKeyDictionary()

    def client(self) -> Redis:
        """The running loop's client. It connects at the first command."""
        loop = asyncio.get_running_loop()
        known = self._clients.get(loop)
        if known is not None and known[0] == os.getpid():
            return known[1]
        client = factory.client(self.settings, bounded=self._bounded)
        end = self._closed_at_the_end(client)
        with contextlib.suppress(StopIteration):
            end.asend(None).send(None)  # run it to its `yield`, which registers it with the loop
        self._clients[loop] = (os.getpid(), client, end)
        return client

    def is_open(self) -> bool:
        """Whether the running loop has a client: from the first use until the loop closes."""
        return asyncio.get_running_loop() in self._clients

    async def aclose(self) -> None:
        """Close the running loop's client and its connections."""
        known = self._clients.get(asyncio.get_running_loop())
        if known is not None and known[0] == os.getpid():
            await known[2].aclose()

    async def _closed_at_the_end(self, client: Redis) -> AsyncGenerator[None, None]:
        # When a loop closes, it closes the asynchronous generators that were started in it.
        try:
            yield
        finally:
            self._clients.pop(asyncio.get_running_loop(), None)
            await _close(client)


async def _close(client: Redis) -> None:
    """Close all connections of a client, even if the caller is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while True:
        try:
            # It starts a task per connection. A task that is cancelled before its first step does
            # not close its connection; after its first step the connection is closed.
            await client.aclose()
        except asyncio.CancelledError as error:
            cancelled = error
        else:
            break
    if cancelled is not None:
        raise cancelled


def default_settings() -> RedisSettings:
    """The settings in the `redis_connection` block. Raises StartupCheck."""
    return RedisSettings.from_mapping(host.settings().get("redis_connection"))


def named_settings(name: str | None) -> RedisSettings:
    """The settings in the block `name` of `redis_connections`; `None`: the default connection.

    Raises StartupCheck with the faults of the block, or with the known names.
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
            f"redis_connections: no connection {word_shown(name)}; known: {known}. Add it "
            "there, or remove the option `connection` to use redis_connection"
        )
    return RedisSettings.from_mapping(blocks[name], where=f"redis_connections.{label(name)}")
