"""Calls a reducer that has no `await`, without a task.

There are two versions. The compiled one, `_call`, avoids an exception per event. It also finds
out by reference counts which results only the caller holds, which avoids a copy.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, cast

from lo_kvs.kvs import codec
from lo_kvs.stream_analytics.engine.fold import Event, Fold, ReducerFunction


def run_purely(function: ReducerFunction, event: Event, fold: Fold, wanted: bool, /) -> Any:
    """Run a reducer without an `await` on `event`, and apply its result to the fold.

    Returns and raises what `Fold.apply` does, and raises what the reducer raises. The compiled
    version also passes which halves of the result are plain JSON that nothing else refers to.
    """
    running = cast("Generator[Any, None, Any]", function(event, fold.next_state()))
    try:
        running.send(None)
    except StopIteration as finished:
        return fold.apply(finished.value, wanted)
    running.close()
    raise RuntimeError("the reducer has no `await` but suspended")


if codec.COMPILED:
    from lo_kvs.stream_analytics.engine._call import run
else:
    run = run_purely

__all__ = ["run", "run_purely"]
