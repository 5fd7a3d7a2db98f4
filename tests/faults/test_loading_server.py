"""A server that has started and still reads its data: it is waited for, until the deadline."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.busy import late
from tests.faults.tally import Tally

from lo_kvs.kvs import KVSError, OutcomeUnknown, PersistentRedisKVS, ServerLoading
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.server import RedisServer

ROUNDS = 1
RETRY_FOR = 0.6
GRACE = 0.5
KEYS = 3_000
#: Reading a key takes so many microseconds, so loading takes three seconds at least.
KEY_DELAY_US = 1_000


async def until_loading(server: RedisServer) -> None:
    """Wait until the server is up again, and says LOADING."""
    deadline = time.monotonic() + 20
    while True:
        assert time.monotonic() < deadline
        # Without retries: those of the client would wait until all is loaded.
        with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as client:
            try:
                client.ping()
            except redis.BusyLoadingError:
                return
            except redis.ConnectionError:
                await asyncio.sleep(0.01)
            else:
                await asyncio.sleep(0)  # the old one still, or the new one is done already


async def rewritten(server: RedisServer) -> None:
    """Wait until the append-only file holds keys, which load slowly, rather than commands."""
    deadline = time.monotonic() + 20
    with redis.Redis(port=server.port) as client:
        client.bgrewriteaof()
        while client.info("persistence")["aof_rewrite_in_progress"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("kept_in", ["snapshot", "append-only file"])
def test_loading_server(kept_in: str, tally: Tally) -> None:
    async def main(server: RedisServer) -> int:
        patient = RedisSettings(host="127.0.0.1", port=server.port, retry_for=60)
        hasty = RedisSettings(host="127.0.0.1", port=server.port, retry_for=RETRY_FOR)
        tried = 0
        async with (
            PersistentRedisKVS(connection=patient) as waits,
            PersistentRedisKVS(connection=hasty) as gives_up,
        ):
            await waits.multiset({f"key {n}": n for n in range(KEYS)})
            await waits.set("count", 0)
            if kept_in == "append-only file":
                await rewritten(server)
            for at in range(1, ROUNDS + 1):
                starting = asyncio.create_task(asyncio.to_thread(server.restart))
                await until_loading(server)
                going_on = asyncio.create_task(
                    waits.update("count", lambda value: int(str(value)) + 1)
                )
                for call in (lambda: gives_up.get("count"), lambda: gives_up.set("count", -1)):
                    start = time.monotonic()
                    with pytest.raises(KVSError) as fault:
                        await call()
                    assert time.monotonic() - start < RETRY_FOR + late(GRACE)
                    # The last attempt may have been cut off before it was answered.
                    assert type(fault.value) in (ServerLoading, OutcomeUnknown)
                    assert fault.value.code == "LOADING"
                    tried += 1
                assert not going_on.done()
                async with asyncio.timeout(60):
                    assert await going_on == at
                    await starting
                assert await gives_up.multiget(["count", "key 7"]) == [at, 7]
                tried += 1
        return tried

    kept = ["--save", "3600 1"] if kept_in == "snapshot" else ["--appendonly", "yes"]
    slow = [
        "--key-load-delay",
        str(KEY_DELAY_US),
        "--loading-process-events-interval-bytes",
        "1024",
    ]
    with RedisServer(*kept, *slow) as server:
        tried = asyncio.run(main(server))
    tally("T14", tried, f"{kept_in}: waited for, or failed in time")
