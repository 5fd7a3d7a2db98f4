"""Where items are handed in, to wait until a group of them leaves, and where that is told.

Every event comes by here twice, so this is compiled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from lo_kvs.kvs.batching.queue import PendingQueue
from lo_kvs.kvs.errors import StoreClosed

logger = logging.getLogger(__name__)


class Inbox:
    """What waits, and whether anybody carries it.

    begin    called with nothing when an item comes and nobody carries: somebody is to do so
    enough   when so many wait `hurry` is called: what has begun need not wait for more
    waiting  what was handed in, first come, first served
    busy     whether somebody carries; who stops doing so says that
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
        """Take `item` into the group that leaves next; `done(answer)` is called then.

        With a deadline of its own it leaves with those whose deadlines agree.
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
        """Take nothing more: `submit` raises `StoreClosed` with this text."""
        self._closed = why


def resolve_all(group: list[Any], answers: Sequence[Any]) -> None:
    """Give each of the group its answer, and empty it: what is done with is freed one by one,
    while it is in the processor's caches, and not all of it when they have been emptied.

    What a callback raises is logged, and the others get their answers. So they do where it is
    KeyboardInterrupt or SystemExit, which ends the program: it is raised when all have theirs.
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
            logger.exception("a callback failed; the others go on")
        except (KeyboardInterrupt, SystemExit) as error:
            stop = error
        except BaseException:
            logger.exception("a callback failed; the others go on")
    if stop is not None:
        raise stop
