"""Simulates a class of students who type, delete, pause and switch between documents.

The events are those of a class that writes in Google Docs, interleaved over time, with
increasing server times. They depend only on the arguments, on every version of Python: the clock
is simulated, and only `random.Random.random()` is used, whose sequence is guaranteed not to
change. The final texts are known without a reducer, so text reducers can be tested with them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from random import Random

from lo_kvs.simulate.log import write_study_log
from lo_kvs.simulate.student import SOURCE, Event, Paper, Student

__all__ = ["SOURCE", "START_S", "SimulatedClass", "simulate", "write_study_log"]

START_S = 1_788_771_600.0  # Monday, 7 September 2026, 9:00 UTC
ARRIVAL_MS = 60_000  # the class comes in within its first minute


class SimulatedClass:
    """A class of `students` that makes `events` events, the first two of each student's
    being the ones that say who it is.

    `start` is the server's time of the beginning, in seconds since 1970. Each student has
    `documents` documents, whose texts stay around `length` UTF-16 units at most, so that
    the class can go on for any number of events. The same seed produces the same class.

    Raises ValueError for a class of none, a negative number of events, no documents, or
    a length below 100.
    """

    def __init__(
        self,
        students: int = 10,
        events: int = 1000,
        seed: int = 0,
        *,
        start: float = START_S,
        documents: int = 3,
        length: int = 4000,
    ) -> None:
        least = {"students": 1, "events": 0, "documents": 1, "length": 100}
        given = {"students": students, "events": events, "documents": documents, "length": length}
        for name, value in given.items():
            if value < least[name]:
                raise ValueError(f"{name} must be at least {least[name]}, got {value}")
        self._count = events
        self._options = (students, seed, round(start * 1000), documents, length)
        self._students = self._overdue_timer()

    def events(self) -> Iterator[Event]:
        """The events, from the first; called again, the same ones again.

        No two share an object, so each may be changed by whoever gets it.
        """
        students = self._students = self._overdue_timer()
        waiting = [(student.at_ms, index) for index, student in enumerate(students)]
        heapq.heapify(waiting)
        for _ in range(self._count):
            index = waiting[0][1]
            event = students[index].next_event()
            heapq.heapreplace(waiting, (students[index].at_ms, index))
            yield event

    @property
    def texts(self) -> dict[tuple[str, str], str]:
        """The texts as of the event that `events` gave last: `{(safe_user_id, doc_id): text}`.

        Documents in which nothing was saved yet are absent.
        """
        return {
            (student.safe_user_id, paper.doc_id): paper.text()
            for student in self._students
            for paper in student.papers
            if paper.saved
        }

    def _overdue_timer(self) -> list[Student]:
        students, seed, start_ms, documents, length = self._options
        random = Random(seed)
        return [
            Student(
                index,
                Random(int(random.random() * 2**53)),
                start_ms + int(random.random() * ARRIVAL_MS),
                [Paper(f"sim-doc-{index:03d}-{number}") for number in range(documents)],
                length,
            )
            for index in range(students)
        ]


def simulate(
    students: int = 10,
    events: int = 1000,
    seed: int = 0,
    *,
    start: float = START_S,
    documents: int = 3,
    length: int = 4000,
) -> Iterator[Event]:
    """The events of a `SimulatedClass` with these arguments."""
    options = {"documents": documents, "length": length}
    return SimulatedClass(students, events, seed, start=start, **options).events()
