"""What belongs to one event loop of one process: whether that is here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: This process; what was made before a fork belongs to another one.
_pid = os.getpid()
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=lambda: globals().update(_pid=os.getpid()))


def of_this_loop(known: dict[asyncio.AbstractEventLoop, T], make: Callable[[], T]) -> T:
    """What `known` has for the running event loop, made where there is nothing yet.

    What belongs to loops that have ended is forgotten then.
    """
    loop = asyncio.get_running_loop()
    found = known.get(loop)
    if found is None:
        for ended in [loop for loop in list(known) if loop.is_closed()]:
            known.pop(ended, None)
        found = known[loop] = make()
    return found


class LoopBound:
    """The base of what works on the event loop on which it was made, and on no other."""

    def __init__(self) -> None:
        self._pid = _pid
        self._loop = asyncio.get_running_loop()

    def is_ours(self) -> bool:
        """Whether it was made in this process, and not before a fork."""
        return self._pid == _pid

    def is_on(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it belongs to `loop`, the running event loop, in this process.

        Whoever asks has asked asyncio which loop runs. That the own loop is running in this
        thread says less: a second one may run inside it (Jupyter, nest_asyncio).
        """
        return self._loop is loop and self._pid == _pid
