"""Workers that are killed at work and started again: nothing acknowledged is lost."""

from __future__ import annotations

import random
import threading
import time

from tests.faults.stored import student_counts
from tests.faults.tally import Tally
from tests.faults.worker import STUDENTS
from tests.faults.workers import Worker, tell

from lo_kvs.testing.servers.server import RedisServer

WORKERS = 3
KILLS_EACH = 12
LIFE_S = (0.15, 0.45)


class Life:
    """One worker's place: a process after another, each killed while an event is in flight."""

    def __init__(self, url: str, student: str, seed: int) -> None:
        self.student = student
        self.acknowledged = 0
        self.kills = 0
        self.idle = 0  # processes that were killed before anything was acknowledged
        self._url = url
        self._random = random.Random(seed)
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            for _ in range(KILLS_EACH):
                self._one_process()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failure = error

    def _one_process(self) -> None:
        worker = Worker("acknowledge", self._url, student=self.student)
        try:
            worker.wait_until_ready()
            worker.go()
            # From when it is at work: most of a life of 0.15 s would be the start of Python.
            time.sleep(self._random.uniform(*LIFE_S))
            assert worker.process.poll() is None, "a worker ended by itself"
        finally:
            said = worker.kill()
        assert said == b"counted\n" * (len(said) // len(b"counted\n"))
        self.kills += 1
        self.acknowledged += said.count(b"\n")
        self.idle += not said


def test_killed_workers_lose_nothing_acknowledged(
    redis_server: RedisServer, redis_url: str, seed: int, tally: Tally
) -> None:
    start = time.monotonic()
    # Two share a state, so that a killed one's last event also meets a living writer.
    lives = [
        Life(redis_url, STUDENTS[number % len(STUDENTS)], seed + number)
        for number in range(WORKERS)
    ]
    for life in lives:
        life.thread.join()
        if life.failure is not None:
            raise life.failure
    for student in STUDENTS:
        own = [life for life in lives if life.student == student]
        kills = sum(life.kills for life in own)
        acknowledged = sum(life.acknowledged for life in own)
        internal, external = student_counts(redis_url, student)
        tell(
            f"seed {seed}, {student}: {kills} kills, {acknowledged} acknowledged, "
            f"{internal - acknowledged} more stored, {time.monotonic() - start:.1f} s"
        )
        assert acknowledged > 20 * kills
        assert sum(life.idle for life in own) < kills / 2
        assert 0 <= internal - acknowledged <= kills
        assert internal == external
        tally(
            "T3",
            kills,
            f"{internal - acknowledged} more stored than acknowledged (seed {seed})",
        )
