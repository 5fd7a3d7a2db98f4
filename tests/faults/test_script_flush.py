"""A server that forgets its scripts again and again, while processes count."""

from __future__ import annotations

import time

import redis
from tests.faults.stored import stored_counts
from tests.faults.tally import Tally
from tests.faults.worker import COUNTERS, STUDENTS, key_of
from tests.faults.workers import Worker, released, tell, totals

from learning_observer.testing.server import RedisServer

PROCESSES = 3
FLUSHES = 1_500
KEYS = [*COUNTERS, *(key_of(student) for student in STUDENTS)]


def forgotten(client: redis.Redis) -> int:
    """How often the server has said NOSCRIPT."""
    errors = client.info("errorstats")
    assert isinstance(errors, dict)
    found = errors.get("errorstat_NOSCRIPT", {"count": 0})
    return int(found["count"])


def test_flushed_scripts_change_no_count(
    redis_server: RedisServer, redis_url: str, tally: Tally
) -> None:
    start = time.monotonic()
    workers = [Worker("count", redis_url) for _ in range(PROCESSES)]
    with redis.Redis.from_url(redis_url) as client, released(workers):
        before = forgotten(client)
        for _ in range(FLUSHES):
            client.script_flush()
            time.sleep(0.001)
        for worker in workers:
            worker.stop()
        acknowledged, errors = totals([worker.report() for worker in workers])
        met = forgotten(client) - before
    tell(
        f"{FLUSHES} times SCRIPT FLUSH, {met} times NOSCRIPT, {time.monotonic() - start:.1f} s; "
        f"acknowledged {dict(acknowledged)}, errors {errors}"
    )
    assert errors == {}
    assert met > 300
    assert all(acknowledged[key] > 50 for key in KEYS)
    assert stored_counts(redis_url, KEYS) == acknowledged
    tally("T6", FLUSHES, f"{met:,} times NOSCRIPT, no error, {acknowledged.total():,} events exact")
