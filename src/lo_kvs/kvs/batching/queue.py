"""What waits for its turn, first come, first served, and until when where that is known.

Items mostly wait without a deadline of their own: noting when each was handed in would cost
every call. They get one where it is asked for, and where what is before them takes long.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeAlias, TypeVar

from lo_kvs.kvs.batching.deadlines import Turn, agree

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Timed(NamedTuple, Generic[Item, Answer]):
    """What waits, with the time when it is given up.

    own  whether it came with that; else it was noted here, from when it was handed in
    """

    item: Item
    done: Callable[[Answer], object]
    deadline: float
    own: bool


#: What waits: the item, and what is called with its answer.
Pending: TypeAlias = tuple[Item, Callable[[Answer], object]] | Timed[Item, Answer]


class PendingQueue(deque[Pending[Item, Answer]], Generic[Item, Answer]):
    """What waits. Without deadlines it is a deque, and costs no more.

    timed  whether any item may have a deadline
    turn   how long what is before an item may take until its deadline counts
    """

    __slots__ = ("_soonest", "timed", "turn")

    def __init__(self, turn: Turn | None = None) -> None:
        super().__init__()
        self.turn = turn or Turn()
        self._no_deadlines()

    def add_timed(self, item: Item, done: Callable[[Answer], object], deadline: float) -> None:
        """Add an item with a deadline of its own."""
        self._time(Timed(item, done, deadline, own=True))

    def note(self, deadline: float, *, first: int = 0, of_first: float = 0.0) -> None:
        """Each item without a deadline gets this one, and the `first` ones get `of_first`.

        No deadline is later than the first of the two.
        """
        new: list[Pending[Item, Answer]] = []
        while self:
            last = self[-1]
            if isinstance(last, Timed) and not last.own:
                break  # it was noted, and then so were all before it
            new.append(self.pop())
        while new:
            each = new.pop()
            if isinstance(each, Timed):
                self._time(each._replace(deadline=min(each.deadline, deadline)))
            else:
                until = of_first if len(self) < first else deadline
                self._time(Timed(*each, until, own=False))

    def forget(self) -> None:
        """Deadlines that were noted are void: who waits does so because there is much to do."""
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
        """Take out the first ones, so many at most, whose deadlines agree; and the soonest.

        for_s  for how long from now those are tried that have none
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
        """Put back what was taken and does not leave yet."""
        if any(isinstance(each, Timed) for each in items):
            self.timed, self._soonest = True, -math.inf
        self.extendleft(reversed(items))

    def overdue(self, now: float, *, but_first: int = 0) -> list[Pending[Item, Answer]]:
        """Take out all whose time is up, but for so many at the left end."""
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
        self._soonest = math.inf  # no deadline in here is sooner

    def _time(self, item: Timed[Item, Answer]) -> None:
        self.append(item)
        self.timed = True
        self._soonest = min(self._soonest, item.deadline)
