"""Many changes of one call, made part after part, so that other callers have their turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from lo_kvs.kvs.batching.deadlines import Deadline
from lo_kvs.kvs.changes import Change, Outcome
from lo_kvs.kvs.errors import OutcomeUnknown, Unavailable

#: How often it is looked whether a part is tried in vain.
LOOK_EVERY_S: Final = 0.25


class Commits(Protocol):
    """What is needed of a store."""

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        """Make each change whole or not at all."""

    def patience(self) -> Deadline:
        """How long a call that is made now is tried."""

    def failed_attempts(self) -> int:
        """How many attempts to reach the store were in vain so far."""


async def commit_in_parts(
    store: Commits, changes: Iterable[Sequence[Change]], deadline: float | None = None
) -> list[list[Outcome]]:
    """The outcomes of the changes of each part, in their order; a part is made in its turn.

    Where a part is tried in vain, the others do not wait for it: other nodes of a cluster may
    take them. They are handed in at once, and all have the deadline of that part; so they do
    where the call has a `deadline` from the beginning.
    """
    parts: list[asyncio.Task[list[Outcome]]] = []
    try:
        for some in changes:
            patience, failed_attempts = store.patience(), store.failed_attempts()
            part = asyncio.create_task(store.commit(some, deadline=deadline))
            parts.append(part)
            if deadline is not None:
                await asyncio.sleep(0)
                continue
            while not part.done() and store.failed_attempts() == failed_attempts:
                await asyncio.wait([part], timeout=LOOK_EVERY_S)
            if not part.done() or any(map(_is_lost, part.result())):
                deadline = patience.until
        return await asyncio.gather(*parts)
    finally:
        for part in parts:
            part.cancel()


def _is_lost(outcome: Outcome) -> bool:
    """Whether the store could not be reached."""
    return isinstance(outcome, Unavailable | OutcomeUnknown)
