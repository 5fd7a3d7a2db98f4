"""A lane: what many tasks hand in leaves in groups, one group at a time.

While one group is on its way, the next one fills; so the slower the way, the larger the
groups. A lane belongs to one event loop, and its work runs in a task of its own: a caller
that is cancelled stops waiting and harms nobody.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

logger = logging.getLogger(__name__)

#: A group is bounded, so that one script never holds the server up for long.
GROUP_ITEMS_MAX: Final = 500
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Lane(Generic[Item, Answer]):
    """Carries items in groups through `carry`, which answers each, in order.

    carry  takes a group, returns an answer for each item; it never raises
    keys   the keys that an item names: no two items of a group share one
    size   the bytes that an item adds to its group
    """

    def __init__(
        self,
        carry: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        keys: Callable[[Item], Sequence[str]],
        size: Callable[[Item], int],
    ) -> None:
        self._carry = carry
        self._keys = keys
        self._size = size
        self._waiting: deque[tuple[Item, Callable[[Answer], object]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: Item, done: Callable[[Answer], object]) -> None:
        """Take `item` into the group that leaves next; `done(answer)` is called then."""
        self._waiting.append((item, done))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def idle(self) -> None:
        """Wait until everything that was handed in has been answered."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                answers = await self._carry([item for item, _ in group])
                for (_, done), answer in zip(group, answers, strict=True):
                    try:
                        done(answer)
                    except Exception:
                        logger.exception("a callback of a lane failed; the others go on")
        finally:
            self._task = None

    def _next_group(self) -> list[tuple[Item, Callable[[Answer], object]]]:
        group: list[tuple[Item, Callable[[Answer], object]]] = []
        named: set[str] = set()
        size = 0
        while self._waiting and len(group) < GROUP_ITEMS_MAX and size < GROUP_BYTES_MAX:
            keys = self._keys(self._waiting[0][0])
            if not named.isdisjoint(keys):
                break
            named.update(keys)
            size += self._size(self._waiting[0][0])
            group.append(self._waiting.popleft())
        return group
