"""The way of the changes of one guard key to the writer of its slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from lo_kvs.kvs.changes import Change, Outcome
from lo_kvs.kvs.redis.cluster.slot_writer import SlotWriter

#: So many keys are known to go with a guard key; reducers put one, the External state.
KNOWN_MAX: Final = 4


class SubmitterClient(Protocol):
    """What the way of a guard key needs of the traffic that it is part of."""

    def check_open(self) -> None:
        """Raises `StoreClosed` where it takes no changes more."""

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        """Make a change of any keys, once it is seen whether they lie in one slot."""


class GuardSubmitter:
    """The way of one guard key's changes: its writer, and the keys that are put with it.

    Whether a key lies in the writer's slot is looked up once, and not again for each change.
    """

    __slots__ = ("_known", "_traffic", "_writer")

    def __init__(self, traffic: SubmitterClient, writer: SlotWriter, guard: str) -> None:
        self._traffic = traffic
        self._writer = writer
        self._known: tuple[str, ...] = (guard,)

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        """Make `change`, guarded by this key, with the slot's next call."""
        known = self._known
        for key in change.puts:
            if key not in known:
                self._traffic.submit(change, done, deadline)  # it looks at all keys
                if self._writer.takes(key) and len(known) < KNOWN_MAX:
                    self._known = (*known, key)
                return
        self._traffic.check_open()
        self._writer.submit(change, done, deadline)
