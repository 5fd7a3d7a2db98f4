"""Deadline rules: how long a call is retried, what it waits for, and what its error says."""

from __future__ import annotations

import asyncio
import re
import time

import pytest
import redis
from tests.busy import late
from tests.kvs.redis_places import closed_port, settings_for

from lo_kvs.kvs import (
    Change,
    Guard,
    OutcomeUnknown,
    PersistentRedisKVS,
    TimedOut,
    Unavailable,
)
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import ClusterServers, RedisServer


def seconds_in(error: BaseException) -> float:
    """How long a call was retried, according to its error."""
    said = re.search(r"gave up after ([0-9.]+) s", str(error))
    assert said, str(error)
    return float(said[1])


@pytest.mark.parametrize("retry_for", [0.4, 1.0])
def test_call_is_retried_until_its_deadline(retry_for: float) -> None:
    """A server that returns just before the deadline is noticed, despite the growing pauses."""

    async def main() -> None:
        where = settings_for(closed_port(), retry_for=retry_for)
        async with PersistentRedisKVS(connection=where) as store:
            for call in (lambda: store.set("a", 1), lambda: store.get("a"), store.keys):
                start = time.monotonic()
                with pytest.raises(Unavailable) as caught:
                    await call()
                took = time.monotonic() - start
                assert took >= retry_for * 0.9
                assert seconds_in(caught.value) == pytest.approx(took, abs=late(0.2))

    asyncio.run(main())


def test_listing_an_unreachable_cluster_is_retried_until_the_deadline() -> None:
    async def main() -> None:
        where = RedisSettings(
            cluster=True, nodes=(f"127.0.0.1:{closed_port()}",), retry_for=1.0, timeout=1.0
        )
        async with PersistentRedisKVS(connection=where) as store:
            start = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                await store.keys()
            took = time.monotonic() - start
            assert took >= 0.9
            assert seconds_in(caught.value) == pytest.approx(took, abs=late(0.2))

    asyncio.run(main())


def test_error_says_how_long_the_call_was_retried(redis_server: RedisServer) -> None:
    """With an explicit deadline that differs from the settings."""

    async def main(client: redis.Redis) -> None:
        async with PersistentRedisKVS(connection=settings_for(redis_server.port)) as store:
            await store.set("a", 1)
            client.client_pause(1500)
            now = asyncio.get_running_loop().time()
            with pytest.raises(TimedOut) as caught:
                await store.read(["a"], deadline=now + 0.5)
            assert seconds_in(caught.value) == pytest.approx(0.5, abs=late(0.3))

    with redis.Redis.from_url(redis_server.url) as client:
        asyncio.run(main(client))


def test_call_queued_behind_a_hanging_call_says_so_in_its_error(redis_server: RedisServer) -> None:
    async def main(client: redis.Redis) -> None:
        async with PersistentRedisKVS(connection=settings_for(redis_server.port)) as store:
            await store.set("k", 0)
            client.client_pause(1500)
            loop = asyncio.get_running_loop()
            outcomes: list[asyncio.Future[object]] = [loop.create_future() for _ in range(2)]
            start = loop.time()
            store.submit(Change("k", Guard.ANY, {"k": b"1"}), outcomes[0].set_result)
            store.submit(Change("k", Guard.ANY, {"k": b"2"}), outcomes[1].set_result, start - 1)
            outcome = await outcomes[1]
            assert isinstance(outcome, TimedOut)
            assert 0.2 < loop.time() - start < late(0.8)
            assert "behind a call that has had no reply for 0." in str(outcome)
            assert "this call was not sent" in str(outcome)
            assert await outcomes[0] is None
            assert await store["k"] == 1

    with redis.Redis.from_url(redis_server.url) as client:
        asyncio.run(main(client))


def test_near_deadline_does_not_break_the_pipeline_of_other_calls() -> None:
    """A slow node answers 40 calls; one of them has no time left."""

    async def main(cluster: ClusterServers) -> None:
        where = RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=10, timeout=5)
        async with PersistentRedisKVS(connection=where) as store:
            keys = [f"k{n}" for n in range(400)]
            keys = [k for k in keys if cluster.node_of(cluster.slot_of(k.encode())) == 0][:40]
            await store.multiset(dict.fromkeys(keys, 0))
            failures = store.failed_attempts()
            cluster.ask(0, "CLIENT", "PAUSE", 1000, "ALL")
            loop = asyncio.get_running_loop()

            async def put(key: str, deadline: float | None = None) -> object:
                (outcome,) = await store.commit(
                    [Change(key, Guard.ANY, {key: b"1"})], deadline=deadline
                )
                return outcome

            start = loop.time()
            near = asyncio.create_task(put(keys[0], start + 0.4))
            others = asyncio.gather(*map(put, keys[1:]))
            assert isinstance(await near, OutcomeUnknown)
            assert loop.time() - start < late(0.9)
            assert await others == [None] * (len(keys) - 1)
            assert store.failed_attempts() == failures + 1  # no other request was sent again
            # The late reply is dropped: the next request gets its own reply.
            assert await put(keys[0]) is None
            assert await store.multiget(keys) == [1] * len(keys)

    with ClusterServers() as cluster:
        asyncio.run(main(cluster))
