"""RedisSettings: where Redis is, how one gets in, and how patiently it is asked.

A `redis_connection` block of the settings says it, and so does each block of
`redis_connections`, with the same options:

    redis_host, redis_port          default localhost, 6379
    redis_db                        default 0
    redis_username, redis_password  default none
    redis_socket                    path of a unix socket, instead of host and port
    redis_url                       redis://, rediss:// or unix://, instead of all of these
    redis_tls                       true: TLS. The files below are for `rediss://` as well
    redis_ca                        file of certificates to trust, beside the system's
    redis_certificate, redis_key    files of our own certificate, where the server asks for one
    redis_check_hostname            false: the server's certificate may name another host
    redis_protocol                  2: no HELLO. Default 3: HELLO, and RESP2 where the server has
                                    no HELLO
    redis_sentinels                 host:port of each Sentinel, instead of host and port
    redis_sentinel_service          the name under which they know the primary
    redis_sentinel_username, redis_sentinel_password
    redis_cluster                   true: a Redis Cluster, found from host and port, or from
    redis_nodes                     host:port of some of its nodes
    redis_pool_size                 connections at most, for each event loop; default 16,
                                    at least 4
    redis_timeout                   seconds to connect, and to wait for one reply; default 5
    redis_retry_for                 seconds that reads and commits are tried for; default 10
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

#: Fields that are or hold a user or a password.
SECRETS: Final = frozenset(
    {"url", "username", "password", "sentinel_username", "sentinel_password"}
)


@dataclass(frozen=True, kw_only=True, repr=False)
class RedisSettings:
    """Where Redis is and how patiently it is asked. Seconds, where not said.

    Raises `StartupCheck` for a URL, host, address or path that cannot be one: it may hold a
    password, and nobody may look it up or print it. `~` and environment variables in paths
    are replaced.
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
        """The settings in a block of this name; `StartupCheck` names every fault, a line each."""
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
            # Something stands there all the same, so that contradictions are found as well.
            values[name] = ("localhost:1",) if values[name] and name in LISTS else None
        made = cls(**{name: value for name, value in values.items() if value is not None})
        # What a URL that cannot be read leaves open is no fault of its own.
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
        """Where, never with which password."""
        return f"RedisSettings({self.place})"

    @property
    def place(self) -> str:
        """The server's address as people may see it: no name, no password."""
        if self.sentinels:
            return f"{self.sentinel_service} of the Sentinels {', '.join(self.sentinels)}"
        if self.cluster:
            nodes = ", ".join(address_text(*node) for node in self.seed_nodes())
            return f"the cluster at {nodes}"
        plain = self.without_url()
        return plain.socket or address_text(plain.host, plain.port)

    def seed_nodes(self) -> list[tuple[str, int]]:
        """Host and port of the nodes from which a cluster is found."""
        if self.nodes:
            return [address(node) for node in self.nodes]
        plain = self.without_url()
        return [(plain.host, plain.port)]

    def without_url(self) -> RedisSettings:
        """The same place and credentials, with what the URL says in fields of their own."""
        if self.url is None:
            return self
        return replace(self, url=None, **read_url(self.url).fields)

    def at(self, host: str, port: int) -> RedisSettings:
        """The same credentials, TLS and patience, for the single server at `host` and `port`."""
        single = copy.copy(self.without_url())
        # Not by way of `replace`: a cluster says where its nodes are, and no setting is at fault.
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
