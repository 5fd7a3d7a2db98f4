"""A server without memory: one that evicts loses what was acknowledged, and is warned of."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.faults.checked import checked, warnings_of_a_start
from tests.faults.tally import Tally
from tests.faults.workers import tell

from lo_kvs.kvs import (
    EphemeralRedisKVS,
    KVSError,
    MissingKVSParameters,
    PersistentRedisKVS,
)
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.server import RedisServer

#: A server that is sound but for what a test changes.
SOUND = ("--save", "3600", "1000000000")
STATES = 1_000
ROOM_BYTES = 1_000_000
ENTRIES: dict[str, dict[str, Any]] = {
    "persistent": {"type": "redis", "prefix": "states:"},
    "ephemeral": {"type": "redis_ephemeral", "expiry": 3_600, "prefix": "states:"},
}


def store_on(server: RedisServer, kind: str) -> PersistentRedisKVS:
    where = RedisSettings(url=server.url, retry_for=2)
    if kind == "ephemeral":
        return EphemeralRedisKVS(3_600, prefix="states:", connection=where)
    return PersistentRedisKVS(prefix="states:", connection=where)


def leave_room(server: RedisServer, room_bytes: int = ROOM_BYTES) -> None:
    """Let the server have so much memory over what it uses: less than the states need."""
    with redis.Redis.from_url(server.url) as client:
        used = int(client.info("memory")["used_memory"])
        client.config_set("maxmemory", used + room_bytes)


async def written(store: PersistentRedisKVS, seed: int) -> tuple[dict[str, str], list[KVSError]]:
    """Write states of some KB: those that were acknowledged, and the errors."""
    draw = random.Random(seed)
    acknowledged: dict[str, str] = {}
    errors: list[KVSError] = []
    for number in range(STATES):
        key, value = f"Internal,m.f,STUDENT:{number}", "x" * draw.randrange(2_000, 6_000)
        try:
            await store.set(key, value)
        except KVSError as error:
            errors.append(error)
            if len(errors) >= 5:  # the memory is full for good
                break
        else:
            acknowledged[key] = value
    return acknowledged, errors


@pytest.mark.parametrize(
    ("policy", "kind"), [("allkeys-lru", "persistent"), ("volatile-lru", "ephemeral")]
)
def test_eviction_loses_silently_and_is_warned_of(
    policy: str,
    kind: str,
    seed: int,
    tally: Tally,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    entry = ENTRIES[kind]

    async def work(server: RedisServer) -> int:
        (early,) = await warnings_of_a_start(caplog, connection, states=entry)
        assert f"maxmemory-policy is {policy}" in early
        leave_room(server)
        async with store_on(server, kind) as store:
            acknowledged, errors = await written(store, seed)
            found = await store.multiget(list(acknowledged))
        assert (errors, len(acknowledged)) == ([], STATES)
        late = await warnings_of_a_start(caplog, connection, states=entry)
        assert len(late) == 2
        assert "keys were evicted since the server started" in late[1]
        with pytest.raises(MissingKVSParameters, match="noeviction"):
            await warnings_of_a_start(caplog, connection, states={**entry, "require": True})
        return sum(value is None for value in found)

    with RedisServer(*SOUND, "--maxmemory-policy", policy) as server:
        connection = {"redis_url": server.url}
        vanished = asyncio.run(work(server))
        report = checked(tmp_path, connection, states=entry)
    tell(f"{policy}: {vanished} of {STATES} acknowledged states vanished")
    assert vanished > 100
    assert report.code == 1
    assert set(report.of("warning")) == {"eviction", "evicted keys"}
    tally("T12", STATES, f"{policy}: {vanished} acknowledged states vanished; it was warned of")


@pytest.mark.parametrize("kind", ENTRIES)
def test_without_eviction_nothing_vanishes(
    kind: str, seed: int, tally: Tally, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(server: RedisServer) -> int:
        assert await warnings_of_a_start(caplog, connection, states=entry) == []
        leave_room(server)
        async with store_on(server, kind) as store:
            acknowledged, errors = await written(store, seed)
            assert await store.dump() == acknowledged
            assert len(errors) == 5
            for error in errors:
                assert "OOM" in str(error)
            # A state that is there stays whole when its successor has no room, and may go.
            key = next(iter(acknowledged))
            with pytest.raises(KVSError, match="OOM"):
                await store.set(key, "y" * 100_000)
            assert await store[key] == acknowledged[key]
        leave_room(server, -100_000)  # the connections of the store had some, and are closed
        (warning,) = await warnings_of_a_start(caplog, connection, states=entry)
        assert "it accepts no writes: OOM " in warning
        return len(acknowledged)

    entry = ENTRIES[kind]
    with RedisServer(*SOUND, "--maxmemory-policy", "noeviction") as server:
        connection = {"redis_url": server.url}
        kept = asyncio.run(work(server))
        report = checked(tmp_path, connection, states=entry)
    assert 0 < kept < STATES
    assert report.code == 4
    assert set(report.of("error")) == {"writes"}
    tally("T12", kept, f"noeviction, {kind}: OOM is answered, every acknowledged state is there")
