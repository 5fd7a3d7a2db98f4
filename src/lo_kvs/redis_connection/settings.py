"""RedisSettings: the address, credentials, TLS and time-outs of a Redis server.

They are read from the `redis_connection` block of the settings, or from a block in
`redis_connections`, which has the same options:

    redis_host, redis_port          default localhost, 6379
    redis_db                        default 0
    redis_username, redis_password  default none
    redis_socket                    path of a unix socket, instead of host and port
    redis_url                       redis://, rediss:// or unix://, instead of all of these
    redis_tls                       true: use TLS. The files below also apply to `rediss://`
    redis_ca                        file with certificates to trust, besides the system's
    redis_certificate, redis_key    files of the client certificate, if the server requires one
    redis_check_hostname            false: the server's certificate may name another host
    redis_protocol                  2: no HELLO. Default 3: HELLO, and RESP2 if the server has
                                    no HELLO
    redis_sentinels                 host:port of each Sentinel, instead of host and port
    redis_sentinel_service          the service name of the primary in the Sentinels
    redis_sentinel_username, redis_sentinel_password
    redis_cluster                   true: a Redis Cluster, found from host and port, or from
    redis_nodes                     host:port of some of its nodes
    redis_pool_size                 maximum number of connections per event loop; default 16,
                                    at least 4
    redis_timeout                   seconds to connect, and to wait for one reply; default 5
    redis_retry_for                 seconds for which reads and commits are retried; default 10
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection.hosts import address, address_text
from lo_kvs.redis_connection.options import LISTS, expanded, read_options, text_faults
from lo_kvs.redis_connection.url import read_url
from lo_kvs.redis_connection.validation import place_faults, problems
from lo_kvs.settings.shown import Secret

#: Fields that are or contain a user name or a password.
SECRETS: Final = frozenset(
    {"url", "username", "password", "sentinel_username", "sentinel_password"}
)


@dataclass(frozen=True, kw_only=True, repr=False)
class RedisSettings:
    """The address, credentials, TLS and time-outs (in seconds) of a Redis server.

    Raises `StartupCheck` for an invalid URL, host, address or path: it may contain a password, so
    it must not be resolved or printed. `~` and environment variables in paths are replaced.
    """

    host: str = "localhost"
    port: int = 6379
    db: int = 0
    username: str | None = None
    password: str | None = None
    socket: str | None = None
    url: str | None = None
    tls: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    check_hostname: bool = True
    protocol: int = 3
    sentinels: tuple[str, ...] = ()
    sentinel_service: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    cluster: bool = False
    nodes: tuple[str, ...] = ()
    pool_size: int = 16
    timeout: float = 5.0
    retry_for: float = 10.0

    @classmethod
    def from_mapping(
        cls, block: Mapping[str, Any] | None, *, where: str = "redis_connection"
    ) -> RedisSettings:
        """The settings in a block with this name. Raises `StartupCheck` with one line per fault."""
        if block is None:
            return cls()
        if not isinstance(block, Mapping):
            raise StartupCheck(f"{where}: expected a mapping, got {type(block).__name__}")
        kinds = {field.name: str(field.type) for field in fields(cls)}
        values, faults = read_options(block, kinds)
        bad = {name: found for name in values if (found := text_faults(name, values[name]))}
        faults += [fault for found in bad.values() for fault in found]
        given = frozenset(values)
        for name in bad:
            # Use a valid value instead, so that contradictions are also found.
            values[name] = ("localhost:1",) if values[name] and name in LISTS else None
        made = cls(**{name: value for name, value in values.items() if value is not None})
        # If the URL is invalid, do not report options that are missing because of that.
        faults += place_faults(given) if "url" in bad else problems(made, given=given)
        if faults:
            raise StartupCheck("\n".join(f"{where}: {fault}" for fault in faults))
        return made

    def __post_init__(self) -> None:
        faults: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            found = text_faults(field.name, value) if value != field.default else []
            faults += found
            if isinstance(value, str) and not found:
                text = Secret(value) if field.name in SECRETS else expanded(field.name, value)
                object.__setattr__(self, field.name, text)
        if faults:
            raise StartupCheck("\n".join(faults))

    def __repr__(self) -> str:
        """The address, without the password."""
        return f"RedisSettings({self.place})"

    @property
    def place(self) -> str:
        """The server's address for messages: no user name, no password."""
        if self.sentinels:
            return f"{self.sentinel_service} of the Sentinels {', '.join(self.sentinels)}"
        if self.cluster:
            nodes = ", ".join(address_text(*node) for node in self.seed_nodes())
            return f"the cluster at {nodes}"
        plain = self.without_url()
        return plain.socket or address_text(plain.host, plain.port)

    def seed_nodes(self) -> list[tuple[str, int]]:
        """Host and port of the nodes from which the cluster is discovered."""
        if self.nodes:
            return [address(node) for node in self.nodes]
        plain = self.without_url()
        return [(plain.host, plain.port)]

    def without_url(self) -> RedisSettings:
        """The same settings with the parts of the URL in separate fields."""
        if self.url is None:
            return self
        return replace(self, url=None, **read_url(self.url).fields)

    def at(self, host: str, port: int) -> RedisSettings:
        """The same credentials, TLS and time-outs for the single server at `host` and `port`."""
        single = copy.copy(self.without_url())
        # Not with `replace`, which validates: the address comes from a node, not from settings.
        for name, value in {
            "host": host,
            "port": port,
            "socket": None,
            "sentinels": (),
            "sentinel_service": None,
            "sentinel_username": None,
            "sentinel_password": None,
            "cluster": False,
            "nodes": (),
        }.items():
            object.__setattr__(single, name, value)
        return single
