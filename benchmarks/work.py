"""The workload of the rows: a counting reducer, its states, and events.

The reducer counts, so that every row can check at its end whether an event was lost or applied
twice. It returns two objects, as most reducers do: both are encoded and sent.
"""

from __future__ import annotations

import inspect
import itertools
import json
from collections.abc import Callable
from typing import Any, Final

from lo_kvs.kvs.codec import Json
from lo_kvs.stream_analytics.engine.fold import StateKeys
from lo_kvs.stream_analytics.fields import Field
from lo_kvs.stream_analytics.helpers import (
    DecoratedReducer,
    KeyField,
    KeyStateType,
    make_key,
    student_event_reducer,
)

SOURCE: Final = "benchmark"
EVENT: Final[dict[str, Any]] = {
    "client": {"event": "keystroke", "doc_id": "1Xq9Z", "timestamp": 1_788_771_600_123},
    "metadata": {"source": SOURCE, "auth": {"safe_user_id": "nobody"}},
    "server": {"time": 1_788_771_600.25},
}


async def count(event: Any, state: Any) -> Any:
    """Counts, and shows a part of its state."""
    state["count"] += 1
    state["last_time"] = event["server"]["time"]
    return state, {"count": state["count"], "last_time": state["last_time"]}


def flat_state(size: int) -> dict[str, Json]:
    """A state of `size` bytes of JSON text whose items are plain: most of it is a text."""
    state: dict[str, Json] = {
        "count": 0,
        "last_time": None,
        "seconds": 1234.5,
        "document": "1Xq9Z_abcdefghijklmnopqrstuvwxyz_0123456789",
        "active": True,
        "note": "",
    }
    if size < text_size(state):
        state = {"count": 0, "last_time": None, "note": ""}
    return {**state, "note": "n" * max(0, size - text_size(state))}


def nested_state(size: int) -> dict[str, Json]:
    """A state of about `size` bytes of JSON text, in lists and objects within each other."""
    documents: list[Json] = []
    state: dict[str, Json] = {"count": 0, "last_time": None, "documents": documents}
    left = size - text_size(state)
    for number in itertools.count():
        document: Json = {"id": f"1Xq9Zdoc{number:04d}", "seconds": number * 3.7, "seen": [number]}
        left -= text_size(document) + 1  # the comma
        if left < 0 and documents:
            return state
        documents.append(document)
    raise AssertionError("a state has a size")


def text_size(state: Json) -> int:
    """Bytes of the state's JSON text, without spaces."""
    return len(json.dumps(state, separators=(",", ":")))


def counting(null_state: Json, name: str = "count") -> DecoratedReducer:
    """`count`, decorated; `name` is part of its keys."""
    return student_event_reducer(null_state=null_state, qualname_override=name)(count)


def declared(reducer: DecoratedReducer) -> list[dict[str, Any]]:
    """The REDUCERS of a module that has this one reducer."""
    return [{"context": SOURCE, "function": reducer}]


def keys_of(reducer: DecoratedReducer, student: str) -> StateKeys:
    """The keys of a student's state."""
    fields: dict[Field, object] = {KeyField.STUDENT: student}
    return StateKeys(
        make_key(reducer, fields, KeyStateType.INTERNAL),
        make_key(reducer, fields, KeyStateType.EXTERNAL),
    )


def metadata_of(student: str) -> dict[str, Any]:
    """What a session of this student is opened with."""
    return {"source": SOURCE, "auth": {"safe_user_id": student}}


def event_of(student: str) -> dict[str, Any]:
    """An event of this student."""
    return {**EVENT, "metadata": metadata_of(student)}


def plain(reducer: DecoratedReducer) -> Callable[..., Any]:
    """The function within the decorator."""
    function: Callable[..., Any] = inspect.unwrap(reducer)
    return function
