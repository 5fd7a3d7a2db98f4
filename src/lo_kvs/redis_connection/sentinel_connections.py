"""Connections to the primary that the Sentinels report; they follow a failover.

redis-py's own pool for Sentinel does not ask again while a connection is open, raises if all
connections are busy, keeps connections to the Sentinels open, and reports READONLY as a lost
connection, so that the outcome of a refused write would count as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import redis.asyncio.connection

from lo_kvs.redis_connection.handshake import (
    BlockingConnection,
    BlockingSecureConnection,
    Connection,
    SecureConnection,
)
from lo_kvs.redis_connection.sentinels import Sentinels


class PrimaryConnection(Connection):
    """A connection to the primary that the Sentinels report; it reconnects if that changes."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = await self._sentinels.primary()
        await super().connect()

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        # Before this command is sent: no reply is outstanding, so none is lost.
        if self.is_connected and await self._sentinels.have_moved(str(self.host), self.port):
            await self.disconnect(nowait=True)
            await self.connect()
        await super().send_packed_command(command, check_health)

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        self._sentinels.stop_asking()
        await super().disconnect(*args, **kwargs)


class PrimaryTLSConnection(PrimaryConnection, SecureConnection):
    """The same, with TLS."""


class BlockingPrimaryConnection(BlockingConnection):
    """A synchronous connection to the primary that the Sentinels report when it is opened."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = self._sentinels.primary_blocking()
        super().connect()


class BlockingPrimaryTLSConnection(BlockingPrimaryConnection, BlockingSecureConnection):
    """The same, with TLS."""


def connection_class(module: ModuleType, *, tls: bool) -> type[Any]:
    """The class for pools of `redis.asyncio.connection` or of `redis.connection`."""
    if module is redis.asyncio.connection:
        return PrimaryTLSConnection if tls else PrimaryConnection
    return BlockingPrimaryTLSConnection if tls else BlockingPrimaryConnection
