"""The class of the demo: its events in batches, and what the store must hold after them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from lo_kvs.ingest.event_log import Item

#: The first batches are small, so that something is seen at once; large ones take less time.
BATCH_EVENTS: Final = (500, 1000, 2000)
BATCH_EVENTS_MAX: Final = 5000


class Sent(NamedTuple):
    """What the store must hold: the events of each student, the text of each document."""

    counts: Counter[str]
    texts: dict[tuple[str, str], str]


class Class:
    """A simulated class.

    read  the number of events that were given out, in whole batches
    seen  the students of these events
    """

    def __init__(self, students: int, events: int, seed: int) -> None:
        self.students = students
        self.events = events
        self.seed = seed
        self.read = 0
        self.seen: set[str] = set()

    @property
    def options(self) -> str:
        """The options of commands that make this class again."""
        return f"--students {self.students} --events {self.events} --seed {self.seed}"

    def batches(self) -> Iterator[list[Item]]:
        """The events, for `Ingest.run`."""
        from lo_kvs.ingest.event_log import Item
        from lo_kvs.simulate import simulate

        sizes = iter(BATCH_EVENTS)
        size = next(sizes)
        batch: list[Item] = []
        for number, event in enumerate(simulate(self.students, self.events, self.seed), 1):
            batch.append(Item("the simulated class", number, b"", event))
            if len(batch) == size or number == self.events:
                self.read = number
                self.seen.update(_student(item.event) for item in batch)
                yield batch
                batch, size = [], next(sizes, BATCH_EVENTS_MAX)

    def sent(self, events: int) -> Sent:
        """What the first `events` events come to. They are made again, without any reducer."""
        from lo_kvs.simulate import SimulatedClass

        simulated = SimulatedClass(self.students, self.events, self.seed)
        counts = Counter(_student(event) for event in islice(simulated.events(), events))
        return Sent(counts, simulated.texts)


def _student(event: dict[str, dict[str, dict[str, str]]]) -> str:
    return event["metadata"]["auth"]["safe_user_id"]
