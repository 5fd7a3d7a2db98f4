"""A script of somebody else that never ends: nobody else is served until it is killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import redis
from tests.busy import late
from tests.faults.tally import Tally

from lo_kvs.kvs import KVSError, OutcomeUnknown, PersistentRedisKVS, ServerBusy
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.server import RedisServer

ROUNDS = 8
RETRY_FOR = 0.6
GRACE = 0.5
#: After so many milliseconds the server begins to say BUSY. Before that it says nothing.
BUSY_AFTER_MS = 50


@asynccontextmanager
async def blocked(server: RedisServer) -> AsyncIterator[None]:
    """The server runs a foreign script, and is known to say BUSY; killed at the end."""

    def block() -> None:
        with (
            redis.Redis(port=server.port, socket_timeout=None) as foreign,
            pytest.raises(redis.ResponseError, match="killed"),
        ):
            foreign.eval("while true do end", 0)

    blocking = asyncio.create_task(asyncio.to_thread(block))
    with redis.Redis(port=server.port) as client:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    await asyncio.to_thread(client.ping)
                except redis.ResponseError as error:
                    if str(error).startswith("BUSY"):
                        break
                    raise
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            yield
        finally:
            client.execute_command("SCRIPT", "KILL")
            await blocking


def test_foreign_script_blocks_the_server(tally: Tally) -> None:
    async def main(server: RedisServer) -> int:
        patient = RedisSettings(host="127.0.0.1", port=server.port, retry_for=30)
        hasty = RedisSettings(host="127.0.0.1", port=server.port, retry_for=RETRY_FOR)
        errors = 0
        async with (
            PersistentRedisKVS(connection=patient) as waits,
            PersistentRedisKVS(connection=hasty) as gives_up,
        ):
            await waits.set("count", 0)
            for at in range(1, ROUNDS + 1):
                async with blocked(server):
                    going_on = asyncio.create_task(
                        waits.update("count", lambda value: int(str(value)) + 1)
                    )
                    reading = asyncio.create_task(waits.get("other"))
                    for call in (lambda: gives_up.get("count"), lambda: gives_up.set("count", -1)):
                        start = time.monotonic()
                        with pytest.raises(KVSError) as fault:
                            await call()
                        assert time.monotonic() - start < RETRY_FOR + late(GRACE)
                        assert type(fault.value) is ServerBusy
                        assert fault.value.code == "BUSY"
                        assert "SCRIPT KILL" in str(fault.value)
                        errors += 1
                    assert not going_on.done()
                    assert not reading.done()
                async with asyncio.timeout(20):
                    assert await going_on == at
                    assert await reading is None
                assert await gives_up["count"] == at
        return errors

    with RedisServer("--lua-time-limit", str(BUSY_AFTER_MS)) as server:
        errors = asyncio.run(main(server))
    tally("T13", errors + 2 * ROUNDS, "typed, retried, in time, each update once")


def test_blocking_script_without_replies(tally: Tally) -> None:
    """Before it says BUSY a server says nothing at all: what was sent may then be done later."""

    async def main(server: RedisServer) -> None:
        where = RedisSettings(host="127.0.0.1", port=server.port, retry_for=RETRY_FOR)
        async with PersistentRedisKVS(connection=where) as store:
            await store.set("count", 0)
            assert await store["count"] == 0
            with redis.Redis(port=server.port, socket_timeout=None) as foreign:
                script = (
                    "local start = redis.call('TIME') "
                    "repeat local now = redis.call('TIME') "
                    "until (now[1] - start[1]) * 1000000 + now[2] - start[2] > 2000000"
                )
                blocking = asyncio.create_task(asyncio.to_thread(foreign.eval, script, 0))
                await asyncio.sleep(0.2)
                start = time.monotonic()
                with pytest.raises(OutcomeUnknown):
                    await store.set("count", 1)
                assert time.monotonic() - start < RETRY_FOR + late(GRACE)
                await blocking
            # The next calls come after it, whatever has become of it.
            assert await store.update("count", lambda _: 2) == 2
            await asyncio.sleep(0.1)
            assert await store["count"] == 2

    with RedisServer("--lua-time-limit", "60000") as server:
        asyncio.run(main(server))
    tally("T13", 1, "silent server: unknown in time, nothing comes back")
