"""LoopBound: objects that belong to one event loop of one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: The ID of this process; objects created before a fork belong to the parent.
_pid = os.getpid()
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=lambda: globals().update(_pid=os.getpid()))


def of_this_loop(known: dict[asyncio.AbstractEventLoop, T], make: Callable[[], T]) -> T:
    """The object in `known` for the running event loop; created if there is none.

    Creating one also removes the objects of closed loops.
    """
    loop = asyncio.get_running_loop()
    found = known.get(loop)
    if found is None:
        for ended in [loop for loop in list(known) if loop.is_closed()]:
            known.pop(ended, None)
        found = known[loop] = make()
    return found


class LoopBound:
    """Base class of objects that work only on the event loop on which they were created."""

    def __init__(self) -> None:
        self._pid = _pid
        self._loop = asyncio.get_running_loop()

    def is_ours(self) -> bool:
        """Whether it was created in this process, not before a fork."""
        return self._pid == _pid

    def is_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it belongs to `loop`, the running event loop, in this process.

        The caller gets `loop` from asyncio. Checking whether our own loop is running is not
        enough: a second loop may run inside it (Jupyter, nest_asyncio).
        """
        return self._loop is loop and self._pid == _pid
