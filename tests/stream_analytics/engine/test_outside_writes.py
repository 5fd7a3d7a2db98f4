"""Other programs write, clear and expire states that a live reducer has cached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from tests.stream_analytics.support import (
    EXTERNAL,
    INTERNAL,
    Run,
    halves,
    key_of,
    process_of,
    send,
    send_at_once,
)

from lo_kvs.kvs import KVS, EphemeralRedisKVS, Store
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.helpers import kvs_pipeline


@kvs_pipeline(null_state={"count": 0, "on": True})
async def count(event: Any, state: Any) -> tuple[Any, Any]:
    """Counts and returns the count; does nothing or fails if its state says so."""
    if state["on"] == "fail":
        raise ValueError(state["count"])
    if not state["on"]:
        return False, False
    if event == "look":
        return False, {"seen": state["count"]}
    state["count"] += 1
    return state, {"count": state["count"]}


def state(counted: int, on: Any = True) -> dict[str, Any]:
    return {"count": counted, "on": on}


def test_state_set_by_another_program_is_used(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await send(count, "a", "b")
        await store.set(key_of(count), state(40))
        assert await send(count, "look", "c") == [{"seen": 40}, {"count": 41}]
        await store.update(key_of(count), lambda _: state(70))
        assert await send_at_once(count, "d", "look", "e") == [
            {"count": 71},
            {"seen": 71},
            {"count": 72},
        ]
        assert await halves(store, count) == [state(72), {"count": 72}]

    run(scenario)


def test_state_set_by_another_program_reaches_a_reducer_that_writes_nothing(run: Run) -> None:
    """It writes nothing, so no conflict shows that its state is old."""

    async def scenario(store: Store) -> None:
        await store.set(key_of(count), state(5, on=False))
        assert await send(count, "a", "b") == [False, False]
        await store.set(key_of(count), state(5))
        assert await send(count, "c") == [{"count": 6}]

    run(scenario)


def test_state_set_by_another_program_repairs_a_failing_reducer(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.set(key_of(count), state(5, on="fail"))
        for result in await send_at_once(count, "a", "b"):
            assert isinstance(result, ValueError)
        await store.set(key_of(count), state(7))
        assert await send_at_once(count, "c") == [{"count": 8}]

    run(scenario)


@pytest.mark.parametrize("sending", [send, send_at_once])
def test_cleared_state_does_not_come_back(run: Run, sending: Callable[..., Any]) -> None:
    async def scenario(store: Store) -> None:
        assert await sending(count, "a", "b", "c") == [{"count": n} for n in (1, 2, 3)]
        await store.clear(everything=True)
        assert await sending(count, "d", "e") == [{"count": 1}, {"count": 2}]
        await store.remove(key_of(count))
        assert await sending(count, "look") == [{"seen": 0}]
        assert await halves(store, count) == [state(0), {"seen": 0}]

    run(scenario)


def test_first_event_after_a_clear_writes_the_null_state_again(run: Run) -> None:
    @kvs_pipeline(null_state="null state")
    async def idle(event: Any, state: Any) -> tuple[Any, Any]:
        return False, False

    async def scenario(store: Store) -> None:
        assert await send(idle, "a") == [False]
        await store.clear(everything=True)
        assert await send(idle, "b") == [False]
        assert await halves(store, idle) == ["null state", "absent"]

    run(scenario)


def test_external_state_of_another_program_is_replaced_by_the_next_event(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await send(count, "a")
        await store.set(key_of(count, EXTERNAL), "from outside")
        await send(count, "b")
        assert await halves(store, count) == [state(2), {"count": 2}]

    run(scenario)


def test_state_that_expired_while_cached_starts_again(redis_url: str) -> None:
    async def scenario() -> None:
        async with EphemeralRedisKVS(60, connection=RedisSettings(url=redis_url)) as store:
            KVS.add_item("default", store)
            process = await process_of(count)
            await process("a", {})
            await process("b", {})
            keys = [key_of(count, half) for half in (INTERNAL, EXTERNAL)]
            with redis.Redis.from_url(redis_url) as client:
                assert all(50_000 < client.pttl(key) <= 60_000 for key in keys)
                for key in keys:
                    client.pexpire(key, 1)
                while client.exists(*keys):  # expired when the server says so
                    time.sleep(0.001)  # noqa: ASYNC251 - nothing else runs here
                assert await process("c", {}) == {"count": 1}
                assert all(50_000 < client.pttl(key) <= 60_000 for key in keys)

    asyncio.run(scenario())


def test_each_event_refreshes_the_time_to_live(redis_url: str) -> None:
    async def scenario() -> None:
        async with EphemeralRedisKVS(60, connection=RedisSettings(url=redis_url)) as store:
            KVS.add_item("default", store)
            process = await process_of(count)
            await process("a", {})
            with redis.Redis.from_url(redis_url) as client:
                client.pexpire(key_of(count), 20_000)
                await process("b", {})
                assert client.pttl(key_of(count)) > 50_000

    asyncio.run(scenario())
