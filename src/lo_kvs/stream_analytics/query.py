"""Queries: reads the states of many students at once, for a dashboard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from lo_kvs import kvs
from lo_kvs.kvs import Store, codec
from lo_kvs.kvs.codec import Json
from lo_kvs.stream_analytics.fields import Field, KeyStateType
from lo_kvs.stream_analytics.keys import bounded_key

#: The value of `select` for every field of the state.
ALL: Final = "All"
ABSENT: Final = object()  # a stored None is a state


class Missing(NamedTuple):
    """The value of a row's field whose path does not exist in the state."""

    path: str
    reason: str

    def as_json(self) -> Json:
        """The error in a form that a dashboard can show."""
        return {"error": self.reason, "path": self.path}


class Row(NamedTuple):
    """One state of the result: its entity, its key and the selected fields.

    fields   the selected values by name; `Missing` if there is none
    present  whether there is a state; if not, the fields come from the default
    """

    values: Mapping[Field, object]
    key: str
    fields: dict[str, Json | Missing]
    present: bool


async def states(
    reducer: Any,
    entities: Iterable[Mapping[Field, object]],
    *,
    select: Mapping[str, str] | str | None = ALL,
    default: Json = None,
    state_type: KeyStateType = KeyStateType.EXTERNAL,
    store: Store | None = None,
) -> list[Row]:
    """The states of `reducer` for many entities, in the given order, by one `multiget`.

    entities    the values of the scope's fields for each row, such as
                `[{KeyField.STUDENT: "s1"}, …]`
    select      `{"words": "text.words"}` returns the dotted path `text.words` as `words`;
                `ALL` returns every field of the state, `None` returns none
    default     the state of a row that has none, a copy for each row
    state_type  which half; dashboards read the External one

    A path that does not exist becomes `Missing` in that row and field; the row stays. List
    items are selected by index. With `ALL`, a state that is not an object becomes one field
    whose name is the empty string, and a stored `None` has no fields. Raises ValueError for
    another string than `ALL`, what `Store.multiget` and `make_key` raise, and `InvalidKey` for a
    value that is too long for a key.
    """
    if isinstance(select, str) and select != ALL:
        raise ValueError(f"select must be a mapping of names to paths, ALL or None, got {select!r}")
    asked = list(entities)
    keys = [bounded_key(reducer, entity, state_type) for entity in asked]
    found = await (store or kvs.KVS()).multiget(keys, ABSENT)
    blank = codec.encode(default)
    return [
        Row(
            entity,
            key,
            _selected(codec.decode(blank) if state is ABSENT else state, select),
            state is not ABSENT,
        )
        for entity, key, state in zip(asked, keys, found, strict=True)
    ]


def _selected(state: Json, select: Mapping[str, str] | str | None) -> dict[str, Json | Missing]:
    if select is None:
        return {}
    if isinstance(select, Mapping):
        return {name: _at_path(state, path) for name, path in select.items()}
    if state is None:
        return {}
    return dict(state) if isinstance(state, dict) else {"": state}


def _at_path(state: Json, path: str) -> Json | Missing:
    value: Json = state
    walked: list[str] = []
    for step in path.split("."):
        where = ".".join(walked) or "the state"
        if isinstance(value, dict):
            if step not in value:
                return Missing(path, f"{where} has no field {step!r}")
            value = value[step]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            # int() rejects thousands of digits; no list has a billion items.
            if not step.isdecimal() or len(step) > 9 or int(step) >= len(value):
                return Missing(path, f"{where} has no item {step!r}; it has {len(value)} items")
            value = value[int(step)]
        else:
            return Missing(path, f"{where} is not an object, so it has no field {step!r}")
        walked.append(step)
    return value
