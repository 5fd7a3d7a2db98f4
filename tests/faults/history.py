"""Histories of operations on one key, and whether one order explains all that was seen.

A history is linearizable if its operations can be put in an order that keeps to time (what had
returned before another one was invoked stands before it) and in which every operation sees what
the ones before it left. The search is that of Wing and Gong, which never visits a set of placed
operations with the same value twice (Lowe).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

#: Values are texts; `None` is the absent value.
Value = str | None
ANYTHING: Final = "anything"  # seen: the operation did not look
NOTHING: Final = "nothing"  # put: the operation changed nothing


@dataclass(frozen=True)
class Operation:
    """One operation: what it saw, what it left, and when (nanoseconds of one clock).

    A read puts NOTHING, a plain write sees ANYTHING, an update sees one value and puts another.
    `returned` is `None` where nobody knows whether it took effect: it did at any time after it
    was invoked, or never.
    """

    seen: Value
    put: Value
    invoked: int
    returned: int | None

    @classmethod
    def read_from(cls, words: Sequence[Any]) -> Operation:
        """The operation that was written as a JSON array."""
        return cls(*words)


def is_linearizable(history: Iterable[Operation], start: Value = None) -> bool:
    """Whether some order of `history` explains it, from the value `start`."""
    operations = sorted(_that_matter(history), key=lambda operation: operation.invoked)
    must = sum(1 << at for at, each in enumerate(operations) if each.returned is not None)
    # A step of the search: which operations are not placed yet, a bit for each, and the value
    # that they meet.
    first = ((1 << len(operations)) - 1, start)
    todo, visited = [first], {first}
    while todo:
        left, value = todo.pop()
        if not left & must:
            return True
        for at in _next_ones(operations, left, value):
            put = operations[at].put
            step = (left & ~(1 << at), value if put == NOTHING else put)
            if step not in visited:
                visited.add(step)
                todo.append(step)
    return False


def _that_matter(history: Iterable[Operation]) -> list[Operation]:
    """Without those of unknown outcome whose value nobody saw.

    If one of them took effect, the next to look found another value, so a plain write came
    between; hence it may as well not have happened.
    """
    operations = list(history)
    seen = {operation.seen for operation in operations}
    return [each for each in operations if each.returned is not None or each.put in seen]


def _next_ones(operations: Sequence[Operation], left: int, value: Value) -> list[int]:
    """Which of the operations that are left can be the next one in the order."""
    possible = []
    all_return_after = math.inf
    while left:
        at = (left & -left).bit_length() - 1
        left &= left - 1
        operation = operations[at]
        if operation.invoked > all_return_after:
            break  # so are those after it: they stand in the order of their invocations
        if operation.returned is not None:
            all_return_after = min(all_return_after, operation.returned)
        if operation.seen not in {ANYTHING, value}:
            continue
        if operation.put == NOTHING:
            return [at]  # a read changes nothing: where it can be next, it may as well be
        possible.append(at)
    return possible
