"""`redis_connections`: a store's entry names the connection that it uses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from tests.kvs.redis_places import closed_port, names

from lo_kvs.kvs import KVS, MissingKVSParameters, kvs_startup_check
from lo_kvs.settings import load_settings, settings
from lo_kvs.testing.servers.server import RedisServer


@pytest.fixture(autouse=True)
def loaded() -> Iterator[None]:
    before = dict(settings)
    yield
    settings.clear()
    settings.update(before)
    asyncio.run(KVS.aclose())


STORES: dict[str, Any] = {
    "default": {"type": "redis", "connection": "states"},
    "cache": {"type": "redis_ephemeral", "expiry": 30},
}


def configure(kvs: object, **blocks: object) -> None:
    load_settings({"kvs": kvs, **blocks})
    kvs_startup_check()


def faults(kvs: object, **blocks: object) -> tuple[str, ...]:
    with pytest.raises(MissingKVSParameters) as found:
        configure(kvs, **blocks)
    return found.value.faults


def test_each_store_uses_the_connection_of_its_entry(
    redis_server: RedisServer, redis_url: str
) -> None:
    async def main() -> None:
        await KVS().set("state", 1)
        await KVS.cache().set("cached", 2)
        assert await KVS().keys() == ["state"]
        assert await KVS.cache().keys() == ["cached"]

    with RedisServer(password="hunter2") as other:
        configure(
            STORES,
            redis_connection={"redis_url": redis_url},
            redis_connections={"states": {"redis_url": other.url}},
        )
        asyncio.run(main())
        with redis.Redis.from_url(other.url) as client:
            assert b"state" in names(client)
            assert b"cached" not in names(client)


def test_unknown_connection_name() -> None:
    block: dict[str, object] = {"states": {}, "cache": {}}
    unknown = {**STORES, "default": {"type": "redis", "connection": "sates"}}
    assert faults(unknown, redis_connections=block) == (
        (
            "redis_connections: no connection 'sates'; known: states, cache. Add it there, or "
            "remove the option `connection` to use redis_connection"
        ),
    )
    assert "known: none yet" in faults(STORES)[0]


def test_faults_name_the_block() -> None:
    wrong = {"states": {"redis_hots": "a", "redis_port": "hunter2"}}
    assert faults(STORES, redis_connections=wrong) == (
        "redis_connections.states: unknown option 'redis_hots'; did you mean redis_host?",
        (
            "redis_connections.states: redis_port expects a whole number, "
            "got other text (not shown, it may be a secret)"
        ),
    )
    assert faults(STORES, redis_connections={"states": "localhost"}) == (
        "redis_connections.states: expected a mapping, got str",
    )
    assert faults(STORES, redis_connections=["states"]) == (
        "redis_connections: expected a mapping of names to options, got list",
    )
    assert faults({"default": {"type": "redis", "connection": 5}}) == (
        "kvs.default.connection: expected a name from redis_connections, got 5",
    )
    assert (
        "has no option 'connection'" in faults({"default": {"type": "stub", "connection": "a"}})[0]
    )


def test_faults_of_a_connection_are_reported_with_those_of_its_store() -> None:
    stores: dict[str, object] = {
        "default": {"type": "redis", "wait_replicas": "many", "connection": "states"},
        "cache": {"type": "redis_ephemeral", "connection": "cache"},
        "other": {"type": "redsi", "connection": "other"},
    }
    blocks = {name: {"redis_port": "hunter2"} for name in ("states", "cache", "other")}
    reported = faults(stores, redis_connections=blocks)
    assert [fault.split(": ")[0] for fault in sorted(reported)] == [
        "kvs.cache",
        "kvs.default.wait_replicas",
        "kvs.other",
        "redis_connections.cache",
        "redis_connections.states",
    ]


def test_only_the_stores_of_a_changed_connection_are_replaced() -> None:
    blocks = {"states": {"redis_port": 7001}}
    configure(STORES, redis_connections=blocks)
    states, cache = KVS(), KVS.cache()
    configure(STORES, redis_connections=blocks)
    assert (KVS(), KVS.cache()) == (states, cache)
    configure(STORES, redis_connections={"states": {"redis_port": 7002}})
    assert KVS() is not states
    assert KVS.cache() is cache


def test_unused_connection_is_not_checked() -> None:
    configure({"default": {"type": "redis"}}, redis_connections={"states": {"redis_port": "x"}})


def test_address_in_the_error_of_an_unavailable_store() -> None:
    port = closed_port()
    configure(
        STORES,
        redis_connections={
            "states": {"redis_host": "127.0.0.1", "redis_port": port, "redis_retry_for": 0.2}
        },
    )
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{port}: gave up"):
        asyncio.run(KVS().set("key", 1))


def test_pmss_rules(tmp_path: Any) -> None:
    overlay = tmp_path / "site.pmss"
    overlay.write_text(
        "redis_connections states { redis_sentinels: a:26379, b:26379; "
        "redis_sentinel_service: main; redis_tls: true; redis_sentinel_password: 007; }\n"
        "kvs default { type: redis; connection: states; }\n"
    )
    load_settings({"kvs": {"default": {"type": "redis"}}}, [overlay])
    kvs_startup_check()
    (source,) = KVS._sources.values()
    where = source[1]
    assert where is not None
    assert where.sentinels == ("a:26379", "b:26379")
    assert (where.sentinel_service, where.tls) == ("main", True)
    assert where.sentinel_password == "007"
