"""Inbox: accepts items, queues them, and starts a dispatcher; `resolve_all` returns the answers.

Every event passes here twice, so this module is compiled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from lo_kvs.kvs.batching.queue import PendingQueue
from lo_kvs.kvs.errors import StoreClosed

logger = logging.getLogger(__name__)


class Inbox:
    """A queue of items, and whether a dispatcher is running.

    begin    called without arguments to start a dispatcher, if none is running
    enough   when this many items wait, `hurry` is called: the dispatcher need not wait for more
    waiting  the queued items, first in, first out
    busy     whether a dispatcher is running; it clears the flag when the queue is empty
    """

    __slots__ = ("_begin", "_closed", "_enough", "_hurry", "busy", "waiting")

    def __init__(
        self,
        begin: Callable[[], object],
        enough: int = 0,
        hurry: Callable[[], object] | None = None,
    ) -> None:
        self._begin = begin
        self._enough = enough
        self._hurry = hurry
        self._closed = ""
        self.waiting: PendingQueue[Any, Any] = PendingQueue()
        self.busy = False

    def submit(
        self, item: Any, done: Callable[[Any], object], deadline: float | None = None
    ) -> None:
        """Queue `item` for the next group. `done(answer)` is called when it is answered.

        An item with a deadline leaves in a group with items of similar deadlines.
        """
        if self._closed:
            raise StoreClosed(self._closed)
        if deadline is None:
            self.waiting.append((item, done))
        else:
            self.waiting.add_timed(item, done, deadline)
        if not self.busy:
            self.busy = True
            self._begin()
        elif self._hurry is not None and len(self.waiting) == self._enough:
            self._hurry()

    def close(self, why: str) -> None:
        """Accept no more items: `submit` raises `StoreClosed` with this text."""
        self._closed = why


def resolve_all(group: list[Any], answers: Sequence[Any]) -> None:
    """Call each item's callback with its answer, and empty the group. Items are freed one by one,
    while they are still in the processor's caches.

    An exception from a callback is logged and the other callbacks still run. KeyboardInterrupt
    and SystemExit are raised after all callbacks have run.
    """
    if len(group) != len(answers):
        raise ValueError(f"{len(answers)} answers for {len(group)} items")
    stop: BaseException | None = None
    for at in range(len(group)):
        done = group[at][1]
        group[at] = None
        try:
            done(answers[at])
        except Exception:
            logger.exception("a callback failed; the others still run")
        except (KeyboardInterrupt, SystemExit) as error:
            stop = error
        except BaseException:
            logger.exception("a callback failed; the others still run")
    if stop is not None:
        raise stop
