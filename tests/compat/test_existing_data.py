"""The data that is in Redis already, and what other programs find there afterwards."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
import redis

from learning_observer.kvs import KVS, PersistentRedisKVS
from learning_observer.redis_connection import RedisSettings
from learning_observer.stream_analytics.helpers import student_event_reducer

EVENT: dict[str, Any] = {"client": {"event": "save"}}
METADATA = {"auth": {"safe_user_id": "s1"}}


@student_event_reducer(module_override="writing.analysis", qualname_override="count")
async def count(event: Any, state: Any) -> tuple[Any, Any]:
    state["count"] += 1
    return state, {"count": state["count"], "text": "naïve 😀"}


KEY = "writing.analysis.count,STUDENT:s1"
# As the standard library's json writes them, in each of its manners.
WRITTEN = [
    json.dumps({"count": 41, "text": "naïve 😀 \ud83d", "list": [], "of": [{}]}),
    json.dumps({"count": 41, "text": "naïve 😀", "list": [], "of": [{}]}, ensure_ascii=False),
    json.dumps({"count": 41, "list": [], "of": [{}], "big": 2**80}, indent=4),
    json.dumps({"count": 41, "list": [], "of": [{}], "float": 1e300, "small": -0.0}),
]


@pytest.mark.parametrize("text", WRITTEN)
def test_state_that_was_written_before_is_carried_on(redis_url: str, text: str) -> None:
    async def carry_on(client: redis.Redis) -> None:
        async with PersistentRedisKVS(connection=RedisSettings(url=redis_url)) as store:
            KVS.add_item("default", store)
            before = json.loads(text)
            assert await store[f"Internal,{KEY}"] == before
            process: Any = await count(METADATA)
            await process(EVENT, {})
            await process(EVENT, {})
            # What `redis-cli GET` prints, and what other programs make of it.
            found = client.get(f"Internal,{KEY}")
            assert isinstance(found, bytes)
            assert json.loads(found) == {**before, "count": 43}
            shown = client.get(f"External,{KEY}")
            assert shown == '{"count":43,"text":"naïve 😀"}'.encode()

    with redis.Redis.from_url(redis_url) as client:
        client.set(f"Internal,{KEY}", text)
        try:
            asyncio.run(carry_on(client))
        finally:
            KVS.remove_item("default")
        # Besides the two states there is only what the store keeps for itself, for a while.
        others = {name for name in client.scan_iter() if KEY.encode() not in name}
        assert all(name.startswith(b"__lokvs:") for name in others)
        assert all(client.pttl(name) > 0 for name in others)
        assert client.pttl(f"Internal,{KEY}") == -1


def test_keys_and_values_of_other_programs(redis_url: str) -> None:
    async def look() -> None:
        async with PersistentRedisKVS(connection=RedisSettings(url=redis_url)) as store:
            assert sorted(await store.keys()) == ["NLP_CACHE_1", "memo/['a', 1]", "old", "text"]
            old = await store["old"]
            assert math.isnan(old["score"])
            assert old["top"] == math.inf
            assert set(await store.dump()) == {"NLP_CACHE_1", "memo/['a', 1]", "old"}
            await store.set("text", "now it is")
            await store.remove("NLP_CACHE_1")

    with redis.Redis.from_url(redis_url) as client:
        client.set("NLP_CACHE_1", json.dumps([1, 2]))
        client.set("memo/['a', 1]", "null")
        client.set("old", '{"score": NaN, "top": Infinity}')
        client.set("text", "this is no JSON")
        client.set(b"\xff\x00binary", b"\x00")
        client.rpush("list", "a")
        client.hset("hash", "a", "b")
        asyncio.run(look())
        assert client.get("text") == b'"now it is"'
        assert client.exists("NLP_CACHE_1") == 0
        assert client.exists(b"\xff\x00binary", "list", "hash") == 3
