"""Turns: split long work on the event loop into slices, so that other tasks can run in between."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

#: The longest slice of work on the event loop, as far as the work can be divided.
TURN_S: Final = 0.005


class Turns:
    """The slices of one piece of work. After each step: `if turns.due(): await turns.pause()`.

    Slices are measured in time, not in items: a step can be a 10-byte key or a 1 MB value.
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = monotonic() + TURN_S

    def due(self) -> bool:
        """Whether the current slice is used up."""
        return monotonic() >= self._until

    async def pause(self) -> None:
        """Let other tasks on the event loop run."""
        await asyncio.sleep(0)
        self._until = monotonic() + TURN_S
