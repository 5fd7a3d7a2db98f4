"""A thousand sessions in four processes on a hundred states: every event counts once."""

from __future__ import annotations

import os
import time
from collections import Counter

from tests.faults.stored import student_counts
from tests.faults.workers import Worker, released, tell, totals

from lo_kvs.testing.servers.server import RedisServer

PROCESSES = 4
SESSIONS = 1_000
STUDENTS = 100
#: LOKVS_SESSION_EVENTS=... is for more (or fewer) events in each session.
EVENTS = int(os.environ.get("LOKVS_SESSION_EVENTS", "200"))


def run_sessions(
    url: str, *, sessions: int, students: int, events: int, **options: object
) -> tuple[Counter[str], Counter[str]]:
    """What was acknowledged to the sessions, by student, and every error."""
    each = sessions // PROCESSES
    workers = [
        Worker(
            "sessions",
            url,
            first=number * each,
            sessions=each,
            events=events,
            keys=students,
            **options,
        )
        for number in range(PROCESSES)
    ]
    with released(workers):
        start = time.monotonic()
        acknowledged, errors = totals([worker.report() for worker in workers])
        took = time.monotonic() - start
    total = sessions * events
    tell(
        f"{sessions} sessions of {events} events, {PROCESSES} processes, {students} states: "
        f"{took:.1f} s, {total / took:,.0f} events/s"
    )
    return acknowledged, errors


def names(students: int) -> list[str]:
    return [f"student {number}" for number in range(students)]


def test_a_thousand_sessions_count_exactly(redis_server: RedisServer, redis_url: str) -> None:
    acknowledged, errors = run_sessions(
        redis_url, sessions=SESSIONS, students=STUDENTS, events=EVENTS
    )
    assert errors == {}
    own = SESSIONS // STUDENTS * EVENTS
    assert acknowledged == dict.fromkeys(names(STUDENTS), own)
    assert {student_counts(redis_url, student) for student in names(STUDENTS)} == {(own, own)}


def test_sessions_show_when_commits_carry_no_guard(
    redis_server: RedisServer, redis_url: str
) -> None:
    """The test above can fail: then a process overwrites what another one has counted."""
    acknowledged, errors = run_sessions(redis_url, sessions=80, students=4, events=50, guards="off")
    assert errors == {}
    assert acknowledged == dict.fromkeys(names(4), 20 * 50)
    for student in names(4):
        internal, external = student_counts(redis_url, student)
        assert internal == external < acknowledged[student]
