"""Running a reducer that waits for nothing, without a task, and seeing what it holds after.

There are two twins: `_running` is compiled; it spares each event an exception, and sees by
reference counts what nobody but the caller holds any more, which spares a copy.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

from lo_kvs.kvs import codec
from lo_kvs.stream_analytics.engine.fold import Event, Fold, ReducerFunction


def run_purely(function: ReducerFunction, event: Event, fold: Fold, wanted: bool, /) -> Any:
    """Have the fold take what a reducer without an `await` returns for `event` and its state.

    The fold is told which halves are plain JSON that only the result holds, every part of
    them; `False` where that is not sure. Returns and raises what `Fold.apply` does, and what
    the reducer raises.
    """
    running = cast("Generator[Any, None, Any]", function(event, fold.next_state()))
    try:
        running.send(None)
    except StopIteration as finished:
        return fold.apply(finished.value, wanted)
    running.close()
    raise RuntimeError("a reducer without an `await` waits all the same")


if codec.COMPILED:
    from lo_kvs.stream_analytics.engine._call import run
else:
    run = run_purely

__all__ = ["run", "run_purely"]
