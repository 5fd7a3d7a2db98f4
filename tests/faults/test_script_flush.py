"""A server that forgets its scripts again and again, while processes count."""

from __future__ import annotations

import time

import redis
from tests.faults.counting import KEYS, count_while
from tests.faults.tally import Tally
from tests.faults.workers import tell

from lo_kvs.kvs.redis.protocol.commit_script import COMMIT
from lo_kvs.testing.servers.server import RedisServer

PROCESSES = 3
FLUSHES = 1_500


def evicted(client: redis.Redis) -> int:
    """How often the server has said NOSCRIPT."""
    errors = client.info("errorstats")
    assert isinstance(errors, dict)
    found = errors.get("errorstat_NOSCRIPT", {"count": 0})
    return int(found["count"])


def test_flushed_scripts_change_no_count(
    redis_server: RedisServer, redis_url: str, tally: Tally
) -> None:
    start = time.monotonic()
    with redis.Redis.from_url(redis_url) as client:

        def flush() -> None:
            for _ in range(FLUSHES):
                client.script_flush()
                time.sleep(0.001)

        before = evicted(client)
        run = count_while(flush, redis_server, processes=PROCESSES)
        met = evicted(client) - before
    tell(
        f"{FLUSHES} times SCRIPT FLUSH, {met} times NOSCRIPT, {time.monotonic() - start:.1f} s; "
        f"acknowledged {dict(run.acknowledged)}, errors {run.errors}"
    )
    assert run.errors == {}
    assert met > 300
    assert all(run.acknowledged[key] > 50 for key in KEYS)
    assert run.stored == run.acknowledged
    total = run.acknowledged.total()
    tally("T6", FLUSHES, f"{met:,} times NOSCRIPT, no error, {total:,} events exact")


def test_errors_surface_when_a_forgotten_script_is_not_sent(
    redis_server: RedisServer, redis_url: str
) -> None:
    """The test above can fail: here the workers send EVALSHA, and never the script itself."""
    with redis.Redis.from_url(redis_url) as client:

        def load() -> None:
            client.script_load(COMMIT.text)

        def flush() -> None:
            for _ in range(20):
                time.sleep(0.02)
                client.script_flush()
                time.sleep(0.001)
                load()

        load()
        run = count_while(flush, redis_server, processes=PROCESSES, fallback="off")
    assert run.errors
    assert all("NOSCRIPT" in error for error in run.errors)
    assert run.stored == run.acknowledged
    assert run.acknowledged.total() > 50
