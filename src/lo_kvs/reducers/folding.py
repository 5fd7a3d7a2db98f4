"""Runs a reducer on a list of events, without keys and without a store."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from lo_kvs.reducers.events import Event


async def fold(
    reducer: Callable[..., Any], events: Iterable[Event], state: Any = None
) -> tuple[Any, Any]:
    """Reduce `events` in their order, beginning with `state`: the reducer's null state.

    `reducer` may be decorated or plain; its keys play no part, so all events should be of
    one student (or document). Returns the last Internal and External states that it gave,
    `state` and `None` where it gave none. `state` itself may be changed on the way. What
    the reducer raises comes out here.

    For trying a reducer out, for tests, and as the measure of what a store costs.
    """
    function = inspect.unwrap(reducer)
    external: Any = None
    for event in events:
        written, shown = await function(event, state)
        if written is not False:
            state = written
        if shown is not False:
            external = shown
    return state, external
