"""Values too large for the server are refused before they are sent; other calls do not wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
import redis

from lo_kvs.kvs import KVSError, OutcomeUnknown, PersistentRedisKVS, Refused
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import ClusterServers, RedisServer

LIMITS = ["proto-max-bulk-len", "client-query-buffer-limit"]
MIB = 1 << 20


@pytest.fixture(params=LIMITS)
def limited(request: pytest.FixtureRequest) -> Iterator[tuple[RedisServer, str]]:
    """A server that takes 1 MiB, by one of its two limits, and the limit's name."""
    with RedisServer(f"--{request.param}", "1mb") as server:
        yield server, request.param


def connections_of(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        info: dict[str, int] = client.info("stats")
        return info["total_connections_received"]


def test_value_too_large_for_the_server(limited: tuple[RedisServer, str]) -> None:
    server, limit = limited

    async def main() -> None:
        where = RedisSettings(port=server.port, retry_for=10)
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset({f"k{n}": n for n in range(50)})
            before = connections_of(server)
            start = time.monotonic()
            calls = [store.set(f"k{n}", "small") for n in range(1, 50)]
            refused, *others = await asyncio.gather(
                store.set("k0", "x" * 2 * MIB), *calls, return_exceptions=True
            )
            assert others == [None] * 49
            assert time.monotonic() - start < 5  # not until the deadline
            assert isinstance(refused, Refused)
            text = str(refused)
            assert "'k0'" in text
            assert "1,048,576" in text
            assert limit in text
            assert "Nothing was written" in text
            assert await store["k0"] == 0
            # No connection was lost over it: nobody had to wait for a new one.
            assert connections_of(server) <= before + 2  # the one that asks, and a second lane
            await store.set("k0", "x" * (MIB // 2))

    asyncio.run(main())


def test_values_too_large_for_one_call_are_split() -> None:
    value = "x" * 400_000

    async def main(server: RedisServer) -> None:
        where = RedisSettings(port=server.port, retry_for=10)
        async with PersistentRedisKVS(connection=where) as store:
            await asyncio.gather(*(store.set(f"k{n}", value) for n in range(8)))
            await store.multiset({f"m{n}": value for n in range(8)})
            for name in ("k", "m"):
                found = await store.multiget([f"{name}{n}" for n in range(8)])
                assert found == [value] * 8

    with RedisServer("--client-query-buffer-limit", "1mb") as server:
        asyncio.run(main(server))


def test_server_that_hides_its_limits() -> None:
    """A user without CONFIG: the connection breaks a few times, and then the call is given up."""

    async def main(server: RedisServer) -> None:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">word", "~*", "+@all", "-config")
        where = RedisSettings(port=server.port, username="app", password="word", retry_for=20)
        async with PersistentRedisKVS(connection=where) as store:
            await store.set("k", 1)
            start = time.monotonic()
            with pytest.raises((Refused, OutcomeUnknown)):
                await store.set("k", "x" * 2 * MIB)
            await store.set("k2", 1)
            assert time.monotonic() - start < 10
            assert await store["k"] == 1

    with RedisServer("--proto-max-bulk-len", "1mb") as server:
        asyncio.run(main(server))


def test_value_too_large_for_a_cluster_node() -> None:
    async def main(cluster: ClusterServers) -> None:
        for node in range(len(cluster.servers)):
            cluster.ask(node, "CONFIG", "SET", "proto-max-bulk-len", "1048576")
        where = RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=10)
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset({f"k{n}": n for n in range(50)})
            start = time.monotonic()
            calls = [store.set(f"k{n}", "small") for n in range(1, 50)]
            refused, *others = await asyncio.gather(
                store.set("k0", "x" * 2 * MIB), *calls, return_exceptions=True
            )
            assert others == [None] * 49
            assert isinstance(refused, Refused)
            assert "proto-max-bulk-len" in str(refused)
            assert time.monotonic() - start < 5
            assert await store["k0"] == 0
            # Those that are too large together, in one slot, leave in several calls.
            values = {f"{{tag}}{n}": "x" * 700_000 for n in range(4)}
            outcomes = await asyncio.gather(
                *(store.set(key, value) for key, value in values.items()), return_exceptions=True
            )
            assert not [each for each in outcomes if isinstance(each, KVSError)]

    with ClusterServers() as cluster:
        asyncio.run(main(cluster))
