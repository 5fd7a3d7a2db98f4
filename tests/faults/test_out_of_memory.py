"""Memory that is full, and nothing may be evicted: the old state stays whole, reads go on."""

from __future__ import annotations

import asyncio
import random

import pytest
import redis
from tests.faults.tally import Tally

from lo_kvs.kvs import Change, OutOfMemory, PersistentRedisKVS
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.server import RedisServer

ROUNDS = 25
KEYS = 40


def test_full_memory_leaves_the_old_state_whole(seed: int, tally: Tally) -> None:
    chosen = random.Random(seed)

    async def fill_up(server: RedisServer, client: redis.Redis) -> int:
        where = RedisSettings(host="127.0.0.1", port=server.port)
        refused = 0
        async with PersistentRedisKVS(connection=where) as store:
            # Pairs that one change writes together, as Internal and External are.
            known = {f"{half} {n}": 0 for n in range(KEYS) for half in ("a", "b")}
            await store.multiset(known)
            for at in range(1, ROUNDS + 1):
                used = client.info("memory")["used_memory"]
                client.config_set("maxmemory", used + chosen.randrange(100_000))
                # Each is larger than the last one, so that some go in and then one does not.
                for n in chosen.sample(range(KEYS), KEYS):
                    text = b'"%s"' % (b"x" * chosen.randrange(20_000))
                    before = await store.read([f"a {n}", f"b {n}"])
                    change = Change(f"a {n}", before[0], {f"a {n}": text, f"b {n}": text})
                    (outcome,) = await store.commit([change])
                    after = await store.read([f"a {n}", f"b {n}"])
                    if outcome is None:
                        assert after == [text, text]
                        continue
                    assert type(outcome) is OutOfMemory
                    assert outcome.code == "OOM"
                    assert "raise maxmemory or remove keys; reads still work" in str(outcome)
                    assert after == before
                    refused += 1
                client.config_set("maxmemory", 1)  # full, whatever there is
                with pytest.raises(OutOfMemory):
                    await store.set("a 0", 1)
                with pytest.raises(OutOfMemory):
                    await store.update("count", lambda value: int(str(value or 0)) + 1)
                # What the message advises must work: keys can be removed.
                assert await store.remove(f"b {at % KEYS}") is True
                assert await store.exists(f"b {at % KEYS}") is False
                client.config_set("maxmemory", 0)
                assert await store.update("count", lambda value: int(str(value or 0)) + 1) == at
                await store.multiset(known)
            return refused

    with (
        RedisServer("--maxmemory-policy", "noeviction") as server,
        redis.Redis(port=server.port) as client,
    ):
        refused = asyncio.run(fill_up(server, client))
    assert refused > ROUNDS
    tally("T12", refused + 2 * ROUNDS, "old state whole, reads and removals work")
