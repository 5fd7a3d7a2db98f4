"""GuardSubmitter: submits the changes of one guard key to the writer of its slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from lo_kvs.kvs.changes import Change, Outcome
from lo_kvs.kvs.redis.cluster.slot_writer import SlotWriter

#: How many keys are remembered for a guard key; reducers put one other key, the External state.
KNOWN_MAX: Final = 4


class SubmitterClient(Protocol):
    """What a GuardSubmitter needs of the cluster client."""

    def check_open(self) -> None:
        """Raise `StoreClosed` if it is closed."""

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        """Submit a change of any keys, after checking that they are in one slot."""


class GuardSubmitter:
    """The writer for one guard key's changes, and the other keys that these changes put.

    Whether a key is in the writer's slot is checked once, not for each change.
    """

    __slots__ = ("_client", "_known", "_writer")

    def __init__(self, client: SubmitterClient, writer: SlotWriter, guard: str) -> None:
        self._client = client
        self._writer = writer
        self._known: tuple[str, ...] = (guard,)

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        """Make `change`, guarded by this key, with the slot's next call."""
        known = self._known
        for key in change.puts:
            if key not in known:
                self._client.submit(change, done, deadline)  # checks all keys
                if self._writer.takes(key) and len(known) < KNOWN_MAX:
                    self._known = (*known, key)
                return
        self._client.check_open()
        self._writer.submit(change, done, deadline)
