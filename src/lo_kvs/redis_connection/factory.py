"""Create redis-py clients from `RedisSettings`: plain, TLS, unix socket, or with Sentinel."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import redis.asyncio.connection
import redis.connection
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from lo_kvs.redis_connection import handshake, sentinel_connections
from lo_kvs.redis_connection.handshake import Handshake
from lo_kvs.redis_connection.hosts import address
from lo_kvs.redis_connection.redaction import Secrets
from lo_kvs.redis_connection.sentinels import Sentinels
from lo_kvs.redis_connection.url import read_url

if TYPE_CHECKING:
    from lo_kvs.redis_connection.settings import RedisSettings

#: Seconds to wait for one Sentinel; a Sentinel that is up answers immediately.
SENTINEL_TIMEOUT_MAX_S = 1.0


def client(settings: RedisSettings, *, bounded: bool = True) -> redis.asyncio.Redis:
    """A client whose pool waits instead of raising if all connections are busy.

    bounded  whether each read and write raises redis-py's TimeoutError after `redis_timeout`, or
             the URL's time-out. redis-py limits writes with `asyncio.wait_for`, which before
             Python 3.12 sometimes swallows a cancellation (python/cpython#86296). So callers with
             their own deadline, such as the stores, pass False.

    With Sentinel, each connect asks for the current primary. A cluster has many servers: create
    a client for one of them with `client(settings.at(host, port))`.
    """
    # A store's attempt ends after `timeout`; all Sentinels must have been asked within it.
    sentinel_timeout = settings.timeout / (len(settings.sentinels) + 1)
    defaults = {
        "max_connections": settings.pool_size,
        "timeout": None,
        "socket_connect_timeout": settings.timeout,
        "socket_timeout": settings.timeout,
    }
    # Options in a URL override these.
    options = defaults | _options(settings, redis.asyncio.connection, asking=sentinel_timeout)
    if not bounded:
        options["socket_timeout"] = None
    return redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool(**options))


def secrets_of(settings: RedisSettings) -> Secrets:
    """The secrets that no message about these servers may show."""
    login = settings.at(settings.host, settings.port)  # includes those in the URL
    return Secrets(
        [login.password, settings.sentinel_password], [login.username, settings.sentinel_username]
    )


def blocking_client(settings: RedisSettings, timeout: float) -> redis.Redis:
    """A synchronous client without retries, with `timeout` seconds for each step."""
    options = _options(settings, redis.connection, asking=timeout)
    options |= {"socket_connect_timeout": timeout, "socket_timeout": timeout}
    return redis.Redis.from_pool(redis.ConnectionPool(**options))


def _options(settings: RedisSettings, module: ModuleType, *, asking: float) -> dict[str, Any]:
    """The options that a pool passes to its connections.

    module   `redis.asyncio.connection` or `redis.connection`, which have the same names
    asking   maximum number of seconds to ask one Sentinel
    """
    if settings.cluster:
        raise ValueError(
            f"{settings.place} has many servers: create a client for one of them with "
            "`client(settings.at(host, port))`"
        )
    more = {} if settings.url is None else dict(read_url(settings.url).options)
    settings = settings.without_url()
    options: dict[str, Any] = {
        "db": settings.db,
        "username": settings.username,
        "password": settings.password,
        **_saves_round_trips(),
    }
    if settings.socket is not None:
        options |= {
            "connection_class": _kinds(module)[module.UnixDomainSocketConnection],
            "path": settings.socket,
        }
    elif settings.sentinels:
        options |= {
            "connection_class": sentinel_connections.connection_class(module, tls=settings.tls),
            "sentinels": _sentinels(settings, min(asking, SENTINEL_TIMEOUT_MAX_S)),
        }
    else:
        options |= {"host": settings.host, "port": settings.port}
        kind = module.SSLConnection if settings.tls else module.Connection
        options["connection_class"] = _kinds(module)[kind]
    if settings.tls:
        options |= _files(settings)
    if settings.socket is None:
        options["socket_keepalive"] = True
    options["handshake"] = Handshake(settings.protocol)
    return options | more


def _kinds(module: ModuleType) -> dict[Any, type[Any]]:
    """Our connection class for each class in redis-py's `module`."""
    if module is redis.asyncio.connection:
        return {
            module.Connection: handshake.Connection,
            module.SSLConnection: handshake.SecureConnection,
            module.UnixDomainSocketConnection: handshake.UnixConnection,
        }
    return {
        module.Connection: handshake.BlockingConnection,
        module.SSLConnection: handshake.BlockingSecureConnection,
        module.UnixDomainSocketConnection: handshake.BlockingUnixConnection,
    }


def _sentinels(settings: RedisSettings, timeout: float) -> Sentinels:
    tls = _files(settings) if settings.tls else {}
    return Sentinels(
        [address(each) for each in settings.sentinels],
        settings.sentinel_service or "",
        {
            "username": settings.sentinel_username,
            "password": settings.sentinel_password,
            "retry": Retry(NoBackoff(), 0),
            **_saves_round_trips(),
            **tls,
        },
        timeout=timeout,
        tls=settings.tls,
    )


def _files(settings: RedisSettings) -> dict[str, Any]:
    return {
        "ssl_ca_certs": settings.ca,
        "ssl_certfile": settings.certificate,
        "ssl_keyfile": settings.key,
        "ssl_check_hostname": settings.check_hostname,
        # Without it, OpenSSL would prompt for the password of an encrypted key on the terminal.
        "ssl_password": "",
    }


def _saves_round_trips() -> dict[str, Any]:
    """Omit CLIENT SETINFO and CLIENT MAINT_NOTIFICATIONS on new connections."""
    return {
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
