"""Commit the many changes of one call in chunks, so that other callers are served in between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from lo_kvs.kvs.batching.deadlines import Deadline
from lo_kvs.kvs.changes import Change, Outcome
from lo_kvs.kvs.errors import OutcomeUnknown, Unavailable

#: How often to check whether a chunk has failed attempts.
CHECK_EVERY_S: Final = 0.25


class Commits(Protocol):
    """The methods of a store that are needed here."""

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        """Make each change atomically."""

    def new_deadline(self) -> Deadline:
        """The deadline of a call that starts now."""

    def failed_attempts(self) -> int:
        """The number of failed attempts to reach the store so far."""

    def fails_as_a_whole(self) -> bool:
        """Whether one call that cannot reach the store means that no other call can."""


async def commit_in_chunks(
    store: Commits, changes: Iterable[Sequence[Change]], deadline: float | None = None
) -> list[list[Outcome]]:
    """Commit each chunk after the one before it; return the outcomes per chunk, in order.

    If a chunk has a failed attempt, the others do not wait for it, because other nodes of a
    cluster may accept them. They are submitted at once, with the deadline of that chunk. The same
    happens from the start if the call has a `deadline`. A store that fails as a whole gets no more
    chunks after one that did not reach it.
    """
    chunks: list[asyncio.Task[list[Outcome]]] = []
    try:
        for some in changes:
            chunk_deadline, failed_attempts = store.new_deadline(), store.failed_attempts()
            chunk = asyncio.create_task(store.commit(some, deadline=deadline))
            chunks.append(chunk)
            if deadline is not None:
                await asyncio.sleep(0)
                continue
            while not chunk.done() and store.failed_attempts() == failed_attempts:
                await asyncio.wait([chunk], timeout=CHECK_EVERY_S)
            if chunk.done() and all(map(_is_lost, chunk.result())) and store.fails_as_a_whole():
                break
            if not chunk.done() or any(map(_is_lost, chunk.result())):
                deadline = chunk_deadline.until
        return await asyncio.gather(*chunks)
    finally:
        for chunk in chunks:
            chunk.cancel()


def _is_lost(outcome: Outcome) -> bool:
    """Whether the store could not be reached."""
    return isinstance(outcome, Unavailable | OutcomeUnknown)
