"""From the settings to a Redis client, and plain commands on the default connection.

The `redis_connection` block of the settings says where Redis is:

    redis_host, redis_port          default localhost, 6379
    redis_db                        default 0
    redis_username, redis_password  default none
    redis_socket                    path of a unix socket, instead of host and port
    redis_url                       redis://, rediss:// or unix://, instead of all of these
    redis_pool_size                 connections at most, for each event loop; default 16,
                                    at least 4
    redis_timeout                   seconds to connect, and to wait for one reply; default 5
    redis_retry_for                 seconds that reads and commits are tried for; default 10
    redis_cluster, redis_nodes      whether it is a cluster; nodes of it, host:port each

The coroutines below run one command each on that connection. The stores do not use them:
they have clients of their own, from `RedisConnection`.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import math
import os
import weakref
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.maint_notifications import MaintNotificationsConfig

from learning_observer import settings
from learning_observer.prestartup import StartupCheck

PREFIX: Final = "redis_"
#: A store's reader and its two writers keep a connection each, and listing keys takes one.
POOL_SIZE_MIN: Final = 4
PORT_MAX: Final = 65_535


@dataclass(frozen=True, kw_only=True, repr=False)
class RedisSettings:
    """Where a Redis server is and how patiently it is asked. Seconds, where not said."""

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = None
    socket: str | None = None
    url: str | None = None
    pool_size: int = 16
    timeout: float = 5.0
    retry_for: float = 10.0
    cluster: bool = False
    nodes: tuple[str, ...] = ()

    @classmethod
    def from_mapping(cls, block: Mapping[str, Any] | None) -> RedisSettings:
        """The settings in a `redis_connection` block; `StartupCheck` names every fault."""
        if block is None:
            return cls()
        if not isinstance(block, Mapping):
            raise StartupCheck(f"redis_connection: expected a mapping, got {type(block).__name__}")
        faults: list[str] = []
        values: dict[str, Any] = {}
        kinds = {field.name: str(field.type) for field in fields(cls)}
        for option, value in block.items():
            name = str(option).removeprefix(PREFIX)
            if not str(option).startswith(PREFIX) or name not in kinds:
                near = difflib.get_close_matches(PREFIX + name, [PREFIX + k for k in kinds], 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                faults.append(f"redis_connection: unknown option {option!r}{hint}")
            elif value is not None:
                try:
                    values[name] = _typed(kinds[name], value)
                except ValueError:
                    # The value itself may be a password, so only its type is told.
                    wanted = kinds[name].removesuffix(" | None")
                    faults.append(
                        f"redis_connection: {option} expects {wanted}, "
                        f"got an unusable {type(value).__name__}"
                    )
        made = cls(**values)
        faults += made._faults()
        if faults:
            raise StartupCheck("\n".join(faults))
        return made

    def _faults(self) -> list[str]:
        faults = [
            f"redis_connection: redis_{name} must be over 0, got {getattr(self, name)}"
            for name in ("port", "timeout", "retry_for")
            if not 0 < getattr(self, name) < math.inf
        ]
        if self.pool_size < POOL_SIZE_MIN:
            faults.append(
                f"redis_connection: redis_pool_size must be {POOL_SIZE_MIN} or more, "
                f"got {self.pool_size}: a store keeps one to read and two to commit"
            )
        if self.port > PORT_MAX:
            faults.append(f"redis_connection: redis_port must be up to {PORT_MAX}, got {self.port}")
        if self.db < 0:
            faults.append(f"redis_connection: redis_db must be 0 or more, got {self.db}")
        if self.url is not None:
            try:
                parse_url(self.url)
            except ValueError:
                faults.append(
                    "redis_connection: redis_url must look like redis://host:6379/0, "
                    "rediss://… or unix:///path"
                )
            else:
                try:
                    pool = self.client().connection_pool
                    pool.make_connection()  # type: ignore[no-untyped-call]  # unconnected
                except (TypeError, ValueError):
                    options = ", ".join(parse_qs(urlsplit(self.url).query))
                    faults.append(
                        f"redis_connection: redis_url has options that do not fit: {options}"
                    )
        return faults

    def __repr__(self) -> str:
        """Where, never with which password."""
        return f"RedisSettings({self.place})"

    @property
    def place(self) -> str:
        """The server's address as people may see it: no name, no password."""
        if self.url is not None:
            parts = parse_url(self.url)
            return str(parts.get("path") or f"{parts.get('host')}:{parts.get('port', 6379)}")
        return self.socket or f"{self.host}:{self.port}"

    def seed_nodes(self) -> list[tuple[str, int]]:
        """Where to ask for the nodes of a cluster: host and port of each."""
        parts = [node.rpartition(":") for node in self.nodes or (self.place,)]
        return [(host, int(port)) for host, _, port in parts]

    def at(self, host: str, port: int) -> RedisSettings:
        """The settings of one node: the same, but for where it is."""
        return replace(self, host=host, port=port, url=None, cluster=False, nodes=())

    def client(self) -> Redis:
        """A client whose pool waits, rather than raises, when all connections are busy."""
        options: dict[str, Any] = {
            "db": self.db,
            "username": self.username,
            "password": self.password,
        }
        if self.url is not None:
            # redis-py lets what stands in the URL win over the options.
            options |= parse_url(self.url)
        elif self.socket is not None:
            from redis.asyncio import UnixDomainSocketConnection

            options |= {"connection_class": UnixDomainSocketConnection, "path": self.socket}
        else:
            options |= {"host": self.host, "port": self.port}
        if "path" not in options:
            options["socket_keepalive"] = True
        defaults: dict[str, Any] = {
            "max_connections": self.pool_size,
            "timeout": None,
            "socket_connect_timeout": self.timeout,
            "socket_timeout": self.timeout,
            # Both save round trips of every new connection (HELLO and CLIENT SETINFO).
            "driver_info": None,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        return Redis.from_pool(BlockingConnectionPool(**(defaults | options)))


class RedisConnection:
    """One client for each event loop, made at its first use there.

    A client's sockets belong to the loop that opened them, so a second loop, or the
    process on the other side of a fork, gets a client of its own. What is still open when a
    loop ends, as `asyncio.run` ends it, is closed with the loop.
    """

    def __init__(self, redis_settings: RedisSettings) -> None:
        self.settings = redis_settings
        self._clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[int, Redis, AsyncGenerator[None, None]]
        ] = weakref.WeakKeyDictionary()

    def client(self) -> Redis:
        """The running loop's client. Nothing is connected before the first command."""
        loop = asyncio.get_running_loop()
        known = self._clients.get(loop)
        if known is not None and known[0] == os.getpid():
            return known[1]
        client = self.settings.client()
        end = self._closed_at_the_end(client)
        with contextlib.suppress(StopIteration):
            end.asend(None).send(None)  # up to its `yield`: the loop now knows of it
        self._clients[loop] = (os.getpid(), client, end)
        return client

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
            await client.aclose()


_default: RedisConnection | None = None


def default_settings() -> RedisSettings:
    """What the `redis_connection` block of the loaded settings says; raises StartupCheck."""
    return RedisSettings.from_mapping(settings.settings.get("redis_connection"))


async def connect() -> None:
    """Connect as the settings say now. `connection()` does it by itself the first time."""
    global _default  # noqa: PLW0603 - the one connection that the coroutines below share
    wanted = default_settings()
    if _default is None or _default.settings != wanted:
        if _default is not None:
            await _default.aclose()
        _default = RedisConnection(wanted)
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


def _typed(kind: str, value: object) -> object:
    """`value` as the type that an option has; numbers may come as text, as PMSS has them."""
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind.startswith("tuple") and isinstance(value, list | tuple):
        return tuple(str(each) for each in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)  # noqa: TRY004 - told with the option's name by the caller
    if kind == "int":
        return int(value) if not isinstance(value, float) or value.is_integer() else int("no")
    return float(value) if kind == "float" else str(value)


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None
