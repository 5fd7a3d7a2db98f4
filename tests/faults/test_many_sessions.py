"""A thousand sessions in four processes on a hundred states: every event counts once."""

from __future__ import annotations

import os
import time

from tests.faults.stored import student_counts
from tests.faults.workers import Worker, released, tell, totals

from learning_observer.testing.server import RedisServer

PROCESSES = 4
SESSIONS = 1_000
STUDENTS = 100
#: LOKVS_SESSION_EVENTS=... is for more (or fewer) events in each session.
EVENTS = int(os.environ.get("LOKVS_SESSION_EVENTS", "200"))


def test_a_thousand_sessions_count_exactly(redis_server: RedisServer, redis_url: str) -> None:
    sessions = SESSIONS // PROCESSES
    workers = [
        Worker(
            "sessions",
            redis_url,
            first=number * sessions,
            sessions=sessions,
            events=EVENTS,
            keys=STUDENTS,
        )
        for number in range(PROCESSES)
    ]
    with released(workers):
        start = time.monotonic()
        acknowledged, errors = totals([worker.report() for worker in workers])
        took = time.monotonic() - start
    total = SESSIONS * EVENTS
    tell(
        f"{SESSIONS} sessions of {EVENTS} events, {PROCESSES} processes, {STUDENTS} states: "
        f"{took:.1f} s, {total / took:,.0f} events/s"
    )
    assert errors == {}
    own = SESSIONS // STUDENTS * EVENTS
    students = [f"student {number}" for number in range(STUDENTS)]
    assert acknowledged == dict.fromkeys(students, own)
    assert {student_counts(redis_url, student) for student in students} == {(own, own)}
