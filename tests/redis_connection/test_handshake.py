"""Servers and proxies without HELLO, or for which HELLO is disabled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from tests.kvs.redis_places import closed_port
from tests.redis_connection.odd_servers import answering, in_front_of
from tests.redis_connection.places import use

from lo_kvs.kvs import NotPermitted, PersistentRedisKVS, Unavailable
from lo_kvs.kvs.checks.findings import Severity
from lo_kvs.kvs.checks.startup import look_at_server
from lo_kvs.kvs.configuration import Entry
from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.cluster import ClusterServers
from lo_kvs.testing.servers.sentinel import SentinelServer
from lo_kvs.testing.servers.server import RedisServer

WITHOUT_HELLO = ("--rename-command", "HELLO", "")
STATES = Entry("states", "redis", {"prefix": "states:"})
PASSWORD = "no:hello/here"


def errors_of(where: RedisSettings) -> list[str]:
    report = look_at_server(where, [STATES])
    return [str(each) for each in report.findings if each.severity is Severity.ERROR]


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_server_without_hello(password: str | None) -> None:
    with RedisServer(*WITHOUT_HELLO, password=password) as server:
        here: dict[str, Any] = {"port": server.port, "password": password}
        for where in (
            RedisSettings(host="127.0.0.1", **here),
            RedisSettings(host="127.0.0.1", db=3, protocol=2, **here),
            RedisSettings(url=server.url),
            RedisSettings(url=f"{server.url}?protocol=2"),
        ):
            asyncio.run(use(where))
            assert errors_of(where) == []


def test_wrong_password_of_a_server_without_hello() -> None:
    async def read(where: RedisSettings) -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.get("key")

    with RedisServer(*WITHOUT_HELLO, password=PASSWORD) as server:
        where = RedisSettings(host="127.0.0.1", port=server.port, password="another")
        with pytest.raises(NotPermitted, match="WRONGPASS"):
            asyncio.run(read(where))
        (error,) = errors_of(where)
        assert "WRONGPASS" in error


def test_unix_socket_of_a_server_without_hello(tmp_path: Any) -> None:
    path = str(tmp_path / "redis.sock")
    with RedisServer(*WITHOUT_HELLO, "--unixsocket", path):
        where = RedisSettings(socket=path)
        asyncio.run(use(where))
        assert errors_of(where) == []


def test_sentinels_of_a_server_without_hello() -> None:
    with (
        RedisServer(*WITHOUT_HELLO) as server,
        SentinelServer(
            server.port, quorum=1, down_after_ms=60_000, failover_timeout_ms=60_000
        ) as sentinel,
    ):
        where = RedisSettings(sentinels=(f"127.0.0.1:{sentinel.port}",), sentinel_service="states")
        asyncio.run(use(where))
        assert errors_of(where) == []


def test_cluster_without_hello() -> None:
    with ClusterServers(*WITHOUT_HELLO) as cluster:
        where = RedisSettings(cluster=True, nodes=cluster.nodes)
        asyncio.run(use(where))
        assert errors_of(where.at(*where.seed_nodes()[0])) == []


REFUSALS = [
    b"-ERR unknown command 'HELLO', with args beginning with: '3'\r\n",
    b"-ERR unknown command\r\n",
    b"-NOPERM this user has no permissions to run the 'hello' command\r\n",
    b"-NOPROTO unsupported protocol version\r\n",
    b"-unsupported command 'hello'\r\n",
    b"-ERR syntax error\r\n",
    None,  # as twemproxy does
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_proxy_without_hello(redis_server: RedisServer, refusal: bytes | None) -> None:
    greeted = []

    def answer(words: Sequence[bytes]) -> bytes | str | None:
        if words[0].upper() != b"HELLO":
            return ""
        greeted.append(words)
        return refusal

    with in_front_of(redis_server.port, answer) as port:
        where = RedisSettings(host="127.0.0.1", port=port)
        asyncio.run(use(where))
        assert len(greeted) == 1  # its pool remembers that
        assert [error for error in errors_of(where) if "HELLO" in error] == []
        greeted.clear()
        asyncio.run(use(RedisSettings(host="127.0.0.1", port=port, protocol=2)))
        assert greeted == []


def test_server_that_closes_every_connection_got_nothing() -> None:
    # A load balancer without a server behind it: nothing may count as sent.
    async def write(where: RedisSettings) -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.set("key", 1)

    with answering(lambda words: None) as port:
        where = RedisSettings(host="127.0.0.1", port=port, retry_for=0.3)
        with pytest.raises(Unavailable):
            asyncio.run(write(where))


def test_server_with_hello_gets_no_extra_command(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        before = client.info("stats")["total_connections_received"]
        client.config_resetstat()
        before = client.info("stats")["total_connections_received"]
        asyncio.run(use(RedisSettings(host="127.0.0.1", port=redis_server.port)))
        stats = client.info("commandstats")
        made = client.info("stats")["total_connections_received"] - before
    assert stats["cmdstat_hello"]["calls"] == made
    assert not {"cmdstat_ping", "cmdstat_client|setinfo"} & set(stats)


def test_protocol_of_a_cluster_by_url(redis_server: RedisServer) -> None:
    where = RedisSettings.from_mapping(
        {"redis_cluster": True, "redis_url": f"redis://127.0.0.1:{closed_port()}?protocol=2"}
    )
    assert where.at("127.0.0.1", 1).protocol == 2


@pytest.mark.parametrize("value", [1, 4, "x", True])
def test_server_without_a_known_protocol(value: object) -> None:
    with pytest.raises(StartupCheck, match="redis_protocol"):
        RedisSettings.from_mapping({"redis_protocol": value})
