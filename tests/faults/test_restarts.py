"""Redis killed and started again under processes that count: they go on, and nothing is lost."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import redis
from tests.faults.stored import stored_counts, student_counts
from tests.faults.tally import Tally
from tests.faults.worker import COUNTERS, STUDENTS, key_of
from tests.faults.workers import Worker, released, tell, totals

from lo_kvs.testing.servers.server import RedisServer

#: Behind the names of what one of the workers has to itself.
MARK = " of one"
ALL_STUDENTS = [*STUDENTS, *(student + MARK for student in STUDENTS)]
KEYS = [
    *(key + mark for mark in ("", MARK) for key in COUNTERS),
    *(key_of(student) for student in ALL_STUDENTS),
]
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
PATIENT = 3
#: These give up within an outage, so that some outcomes stay unknown: with eight calls at a time,
#: on states that nobody else writes (who loses against others while the server answers has all
#: the time for that, and it would count here), and with one call at a time.
HASTY: tuple[dict[str, str], ...] = ({"mark": MARK}, {"alone": "yes"}, {"alone": "yes"})
HASTY_S = 0.4
DOWN_S = (0.6, 0.9)
AT_WORK_S = (0.5, 1.0)
#: Loading takes the server longer than reconnecting takes a client: some calls get LOADING.
BALLAST = 150_000


def add_ballast(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        # As commands, not as a base in the form of a snapshot, which loads three times as fast.
        client.config_set("aof-use-rdb-preamble", "no")
        for start in range(0, BALLAST, 5_000):
            client.mset({f"ballast {number}": "" for number in range(start, start + 5_000)})
        client.bgrewriteaof()
        deadline = time.monotonic() + 20
        while True:
            found = client.info("persistence")
            assert isinstance(found, dict)
            if not (found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"]):
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.01)


def turned_away(url: str) -> int:
    """How many scripts the server refused since its start, as it does while it loads."""
    with redis.Redis.from_url(url) as client:
        stats = client.info("commandstats")
    assert isinstance(stats, dict)
    return sum(
        int(stats[name]["rejected_calls"])
        for name in ("cmdstat_evalsha", "cmdstat_eval")
        if name in stats
    )


class Run:
    """What the workers said in the end, and what stood then."""

    def __init__(self, arguments: Sequence[str], *, seed: int, kills: int) -> None:
        drawn = random.Random(seed)
        start = time.monotonic()
        self.loading = 0
        self.longest_down = 0.0
        with RedisServer(*arguments) as server:
            add_ballast(server.url)
            patient = [Worker("count", server.url) for _ in range(PATIENT)]
            hasty = [Worker("count", server.url, retry_for=HASTY_S, **each) for each in HASTY]
            with released([*patient, *hasty]):
                for _ in range(kills):
                    time.sleep(drawn.uniform(*AT_WORK_S))
                    down = time.monotonic()
                    server.kill()
                    time.sleep(drawn.uniform(*DOWN_S))
                    server.start()
                    self.longest_down = max(self.longest_down, time.monotonic() - down)
                    self.loading += turned_away(server.url)
                    self.after_start = stored_counts(server.url, KEYS)
                time.sleep(AT_WORK_S[1])
                for worker in [*patient, *hasty]:
                    worker.stop()
                self.patient = [worker.report() for worker in patient]
                self.hasty = [worker.report() for worker in hasty]
            self.acknowledged, _ = totals([*self.patient, *self.hasty])
            self.errors = totals(self.patient)[1]
            self.hasty_errors = totals(self.hasty)[1]
            self.unknown = sum((Counter(each["unknown"]) for each in self.hasty), Counter[Any]())
            self.stored = stored_counts(server.url, KEYS)
            self.halves = [student_counts(server.url, student) for student in ALL_STUDENTS]
        tell(
            f"seed {seed}, {kills} kills, down for {self.longest_down:.2f} s, LOADING to "
            f"{self.loading}; acknowledged {dict(self.acknowledged)}, stored {self.stored}, "
            f"unknown {dict(self.unknown)}, errors {dict(self.hasty_errors)}, "
            f"{time.monotonic() - start:.1f} s"
        )


def test_restarts_lose_nothing_acknowledged(seed: int, tally: Tally) -> None:
    kills = 3
    run = Run(DURABLE, seed=seed, kills=kills)
    # A caller with a longer deadline notices nothing.
    assert run.errors == {}
    assert all(run.acknowledged[key] > 50 for key in KEYS)
    assert all(sum(report["acknowledged"].values()) > 50 for report in run.patient)
    assert max(report["slowest"] for report in run.patient) >= DOWN_S[0]
    for key in KEYS:
        assert 0 <= run.stored[key] - run.acknowledged[key] <= run.unknown[key], key
    assert all(internal == external for internal, external in run.halves)
    # A call without a result fails within half a second of the deadline, queued ones too, and
    # what has two steps, a read and a commit.
    assert max(report["slowest"] for report in run.hasty) <= HASTY_S + 0.5
    assert run.hasty_errors
    alone = [report for report, how in zip(run.hasty, HASTY, strict=True) if "alone" in how]
    assert all(report["errors"] for report in alone)
    # They went on after the last start, and met a server that loads.
    assert all(run.stored[key] > run.after_start[key] for key in KEYS)
    assert run.loading > 0
    more = sum(run.stored.values()) - run.acknowledged.total()
    tally(
        "T4",
        kills,
        f"none of {run.acknowledged.total():,} lost, {more} more of "
        f"{run.unknown.total()} unknown (seed {seed})",
    )


def test_restarts_show_what_a_server_without_a_file_loses(seed: int) -> None:
    """The test above can fail: this server acknowledges, and keeps nothing."""
    run = Run(("--appendonly", "no"), seed=seed, kills=1)
    assert run.errors == {}
    assert all(run.stored[key] < run.acknowledged[key] for key in KEYS)
