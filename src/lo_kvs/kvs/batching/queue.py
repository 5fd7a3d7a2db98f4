"""PendingQueue: items in the order in which they were submitted, some of them with deadlines.

Most items have no deadline: recording the time of each would cost every call. An item gets one
if its caller asks for it, or if the call before it takes long.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from lo_kvs.kvs.batching.deadlines import RetryFloor, agree

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Timed(NamedTuple, Generic[Item, Answer]):
    """A queued item with a deadline.

    own  whether the caller gave the deadline; otherwise it was set here, from the submission
    """

    item: Item
    done: Callable[[Answer], object]
    deadline: float
    own: bool


#: A queued item, and the callback for its answer.
Pending: TypeAlias = tuple[Item, Callable[[Answer], object]] | Timed[Item, Answer]


class PendingQueue(deque[Pending[Item, Answer]], Generic[Item, Answer]):
    """Queued items. Without deadlines it is a deque and costs no more.

    timed        whether any item may have a deadline
    retry_floor  how long the call before an item may take until the item's deadline counts
    """

    __slots__ = ("_soonest", "retry_floor", "timed")

    def __init__(self, retry_floor: RetryFloor | None = None) -> None:
        super().__init__()
        self.retry_floor = retry_floor or RetryFloor()
        self._no_deadlines()

    def add_timed(self, item: Item, done: Callable[[Answer], object], deadline: float) -> None:
        """Add an item with a deadline of its own."""
        self._time(Timed(item, done, deadline, own=True))

    def set_deadlines(self, deadline: float, *, first: int = 0, of_first: float = 0.0) -> None:
        """Give each item without a deadline this one, and the `first` ones `of_first`.

        Later deadlines are moved forward to `deadline`.
        """
        new: list[Pending[Item, Answer]] = []
        while self:
            last = self[-1]
            if isinstance(last, Timed) and not last.own:
                break  # this one was set before, and so were all before it
            new.append(self.pop())
        while new:
            each = new.pop()
            if isinstance(each, Timed):
                self._time(each._replace(deadline=min(each.deadline, deadline)))
            else:
                until = of_first if len(self) < first else deadline
                self._time(Timed(*each, until, own=False))

    def clear_deadlines(self) -> None:
        """Remove the deadlines that were set here: the items wait only because of other work."""
        waiting = list(self)
        self.clear()
        self._no_deadlines()
        for each in waiting:
            if not isinstance(each, Timed):
                self.append(each)
            elif each.own:
                self._time(each)
            else:
                self.append((each.item, each.done))

    def pop_group(
        self, now: float, for_s: float, most: int
    ) -> tuple[deque[Pending[Item, Answer]], float]:
        """Remove the first items (at most `most`) with similar deadlines; also return the soonest.

        for_s  how long from now items without a deadline are retried
        """
        taken: deque[Pending[Item, Answer]] = deque()
        soonest, latest = math.inf, -math.inf
        while self and len(taken) < most:
            each = self[0]
            deadline = each.deadline if isinstance(each, Timed) else now + for_s
            low, high = min(soonest, deadline), max(latest, deadline)
            if taken and not agree(low, high, now):
                break
            soonest, latest = low, high
            taken.append(self.popleft())
        if not self:
            self._no_deadlines()
        return taken, soonest

    def put_back(self, items: deque[Pending[Item, Answer]]) -> None:
        """Put back items that `pop_group` returned and that do not leave yet."""
        if any(isinstance(each, Timed) for each in items):
            self.timed, self._soonest = True, -math.inf
        self.extendleft(reversed(items))

    def overdue(self, now: float, *, but_first: int = 0) -> list[Pending[Item, Answer]]:
        """Remove and return the items whose deadline has passed, except the first `but_first`."""
        late: list[Pending[Item, Answer]] = []
        if self._soonest > now:
            return late
        waiting = list(self)
        self.clear()
        self._no_deadlines()
        for at, each in enumerate(waiting):
            if not isinstance(each, Timed):
                self.append(each)
            elif at < but_first or each.deadline > now:
                self._time(each)
            else:
                late.append(each)
        return late

    def _no_deadlines(self) -> None:
        self.timed = False
        self._soonest = math.inf  # a lower bound of all deadlines in the queue

    def _time(self, item: Timed[Item, Answer]) -> None:
        self.append(item)
        self.timed = True
        self._soonest = min(self._soonest, item.deadline)
