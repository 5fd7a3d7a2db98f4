"""The coroutines of `redis_connection`: one command each, on the connection of the settings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.redis_connection.conftest import Certificates
from tests.redis_connection.places import PASSWORD, USER

from lo_kvs import redis_connection
from lo_kvs.redis_connection import commands
from lo_kvs.settings import load_settings, settings


@pytest.fixture(autouse=True)
def loaded() -> Iterator[None]:
    before = dict(settings)
    yield
    settings.clear()
    settings.update(before)


async def use() -> None:
    await redis_connection.connect()
    await redis_connection.set("plain:a", "é")
    await redis_connection.set("plain:b", b"1", 60)
    assert await redis_connection.get("plain:a") == "é".encode()
    assert await redis_connection.mget(["plain:b", "plain:c"]) == [b"1", None]
    assert {"plain:a", "plain:b"} <= set(await redis_connection.keys())
    assert await redis_connection.delete("plain:a") == 1
    assert await redis_connection.delete("plain:a") == 0


def test_under_several_loops_and_other_settings(
    redis_url: str, tls_port: int, certificates: Certificates
) -> None:
    tls = {
        "redis_url": f"rediss://{USER}:{PASSWORD}@localhost:{tls_port}",
        "redis_ca": certificates.ca,
    }
    for block in ({"redis_url": redis_url}, tls, tls, {"redis_url": redis_url}):
        load_settings({"redis_connection": block})
        asyncio.run(use())


def test_cluster_is_not_a_single_server() -> None:
    load_settings({"redis_connection": {"redis_cluster": True}})
    with pytest.raises(ValueError, match="the cluster at localhost:6379 has many servers"):
        asyncio.run(redis_connection.connect())
    load_settings({})
    commands._default = None
