"""Events for any number of sessions, and the states that they must result in.

A reducer is a function of (event, state). So reducing the events of a session again without a
store gives the expected states: a lost event, or one applied twice, shows as a different state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lo_kvs.kvs import Store, codec
from lo_kvs.kvs.backend import GROUP_KEYS_MAX
from lo_kvs.kvs.codec import Json
from lo_kvs.measure.timing import Miscount
from lo_kvs.stream_analytics.engine.fold import Event, Reducer, StateKeys
from lo_kvs.stream_analytics.pipeline import Pipeline


class Planned(NamedTuple):
    """One reducer's turn at one event."""

    reducer: Reducer
    keys: StateKeys
    event: Event


def planned(pipeline: Pipeline, events: Iterable[Event]) -> list[Planned]:
    """Every reducer's turn, in the order of the events."""
    return [
        Planned(place.reducer, place.keys, event)
        for event in events
        for place in pipeline.plan(event)
    ]


def student_of(event: Event) -> str:
    """Whose event it is; all events without a student are one session's."""
    metadata = event.get("metadata")
    auth = metadata.get("auth") if isinstance(metadata, Mapping) else None
    return str(auth.get("safe_user_id")) if isinstance(auth, Mapping) else ""


def by_student(events: Iterable[Event]) -> list[list[Event]]:
    """The events of each student, in their order."""
    found: dict[str, list[Event]] = {}
    for event in events:
        found.setdefault(student_of(event), []).append(event)
    return list(found.values())


def in_sessions(events: Iterable[Event], sessions: int) -> list[list[Event]]:
    """The events in `sessions` lists: a student's are in one of them, in their order."""
    lists: list[list[Event]] = [[] for _ in range(sessions)]
    for number, own in enumerate(by_student(events)):
        lists[number % sessions] += own
    return [events for events in lists if events]


class Session:
    """One student's log, played again and again, each time by a student of a new name.

    sent  the events that were taken so far, in their order
    """

    def __init__(self, name: str, log: Sequence[Event]) -> None:
        self._name = name
        self._log = log
        self.sent = 0

    def next_event(self) -> Event:
        """The next event; it shares what it holds with the log's, but for its student."""
        event = self._event(self.sent)
        self.sent += 1
        return event

    def again(self) -> Iterator[Event]:
        """The events that were taken, once more."""
        return map(self._event, range(self.sent))

    def _event(self, number: int) -> Event:
        turn, at = divmod(number, len(self._log))
        event = self._log[at]
        metadata = event.get("metadata") or {}
        auth = {**(metadata.get("auth") or {}), "safe_user_id": f"{self._name}-{turn}"}
        return {**event, "metadata": {**metadata, "auth": auth}}


async def reduce_without_store(runs: Iterable[Planned]) -> None:
    """Only the reducers, on states that are objects in a dict: what no store can beat.

    The keys are built before. An event that fails in its reducer is skipped.
    """
    states: dict[str, Any] = {}
    for reducer, keys, event in runs:
        state = states.get(keys.internal, states)  # the dict itself: there is none yet
        if state is states:
            state = codec.decode(reducer.null)
        try:
            internal, _ = await reducer.function(event, state)
        except Exception:  # noqa: BLE001, S112 - somebody's reducer: it may refuse an event
            continue
        states[keys.internal] = state if internal is False else internal


async def states_without_store(runs: Iterable[Planned]) -> dict[str, Json]:
    """The Internal states that `runs` come to, by key, from the first event on.

    An event that its reducer refuses changes nothing, as on a store.
    """
    texts: dict[str, bytes] = {}
    for reducer, keys, event in runs:
        key = keys.internal
        before = texts.get(key, reducer.null)
        try:
            internal, _ = await reducer.function(event, codec.decode(before))
            texts[key] = before if internal is False else codec.encode(internal)
        except Exception:  # noqa: BLE001, S112 - somebody's reducer: it may refuse an event
            continue
    return {key: codec.decode(text) for key, text in texts.items()}


async def check_states(store: Store, expected: Mapping[str, Json]) -> None:
    """Raise `Miscount` if the Internal states in `store` differ from the expected ones."""
    keys = list(expected)
    for start in range(0, len(keys), GROUP_KEYS_MAX):
        part = keys[start : start + GROUP_KEYS_MAX]
        found = await store.multiget(part)
        for key, value in zip(part, found, strict=True):
            if value != expected[key]:
                raise Miscount(
                    f"{key}: the state does not match the events; some were "
                    f"lost or applied twice: {value!r:.200} instead of {expected[key]!r:.200}"
                )
