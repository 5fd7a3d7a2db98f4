"""Running a reducer that waits for nothing, without a task, and seeing what it holds after.

There are two twins: `_running` is compiled; it spares each event an exception, and sees by
reference counts what nobody but the caller holds any more, which spares a copy.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Protocol, cast

from learning_observer.kvs import codec


class Lender(Protocol):
    """What gives a reducer its state."""

    def next_state(self) -> Any:
        """The state for the next event."""


def run_purely(
    function: Callable[[Any, Any], Awaitable[Any]], event: Any, lender: Lender, /
) -> tuple[Any, bool, bool]:
    """What a reducer without an `await` returns for `event` and its next state.

    With the result, whether its first and its second half are plain JSON that only the
    result holds, every part of them; `False` where that is not sure. Raises what it raises.
    """
    running = cast("Generator[Any, None, Any]", function(event, lender.next_state()))
    try:
        running.send(None)
    except StopIteration as finished:
        return finished.value, False, False
    running.close()
    raise RuntimeError("a reducer without an `await` waits all the same")


if codec.COMPILED:
    from learning_observer.stream_analytics._running import run
else:
    run = run_purely

__all__ = ["Lender", "run", "run_purely"]
