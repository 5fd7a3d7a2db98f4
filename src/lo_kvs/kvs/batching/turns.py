"""Turns: long work on the event loop, in slices between which the loop does other things."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

#: For how long one piece of work keeps the event loop at most, as far as it can be divided.
TURN_S: Final = 0.005


class Turns:
    """The turns of one piece of work. After each step: `if turns.due(): await turns.pause()`.

    Time is what counts, not items: a step can be a key of ten bytes or a value of a megabyte.
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = monotonic() + TURN_S

    def due(self) -> bool:
        """Whether the event loop has waited long enough."""
        return monotonic() >= self._until

    async def pause(self) -> None:
        """Let the event loop do what else there is."""
        await asyncio.sleep(0)
        self._until = monotonic() + TURN_S
