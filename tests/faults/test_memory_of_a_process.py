"""A process that meets ever new students: its memory stays where it was."""

from __future__ import annotations

import os
import time

import redis
from tests.faults.workers import Worker, released, tell

from lo_kvs.testing.servers.server import RedisServer

MEBIBYTE = 1 << 20
#: LOKVS_STATES=1000000 is for the full size, which takes a minute or two.
STATES = int(os.environ.get("LOKVS_STATES", "200000"))
CACHE_BYTES = 8 * MEBIBYTE
#: For the allocator. The cache is full after the first fifth, some 6,000 states fill it, so all
#: growth after that comes out of this: 50 bytes for each of 160,000 states would be too much.
MARGIN_BYTES = 8 * MEBIBYTE
#: The samples, a twentieth of the states each, of the first fifth.
FIRST_SAMPLES = 4


def growth_after_the_first_fifth(url: str, states: int, cache_bytes: int) -> int:
    """Bytes of resident memory that the rest of the states added, at the worst moment."""
    start = time.monotonic()
    with released([Worker("states", url, states=states, cache_bytes=cache_bytes)]) as (worker,):
        resident: list[int] = worker.report()["resident"]
    grown = max(resident[FIRST_SAMPLES:]) - resident[FIRST_SAMPLES - 1]
    with redis.Redis.from_url(url) as client:
        stored = client.dbsize()
    tell(
        f"{states:,} states, cache of {cache_bytes / MEBIBYTE:g} MiB: resident "
        f"{', '.join(f'{each / MEBIBYTE:.1f}' for each in resident[3::4])} MiB after each fifth, "
        f"{grown / MEBIBYTE:.1f} MiB more after the first; {time.monotonic() - start:.1f} s"
    )
    assert int(str(stored)) >= 2 * states  # both halves of each stand in the store
    return grown


def test_memory_stays_within_the_cache(redis_server: RedisServer, redis_url: str) -> None:
    grown = growth_after_the_first_fifth(redis_url, STATES, CACHE_BYTES)
    assert grown < MARGIN_BYTES


def test_memory_shows_when_nothing_is_forgotten(redis_server: RedisServer, redis_url: str) -> None:
    """The test above can fail: a cache as large as this one keeps every state."""
    grown = growth_after_the_first_fifth(redis_url, 40_000, 1024 * MEBIBYTE)
    assert grown > 2 * MARGIN_BYTES
