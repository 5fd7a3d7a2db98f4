"""Reads the fields of events for the built-in reducers, tolerating malformed events.

An event is `{"client": {...}, "metadata": {...}, "server": {...}}`: what the browser sent,
who sent it, and what the server recorded on receipt. Browsers can send anything, so each of
these functions returns `None` or nothing if a field is missing or invalid.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

from lo_kvs.stream_analytics.helpers import EventField, KeyField, Scope

Event: TypeAlias = Mapping[str, Any]
State: TypeAlias = dict[str, Any]
# What a reducer returns: its Internal and its External state. `False` leaves one unwritten.
Reduced: TypeAlias = tuple[State | Literal[False], State | Literal[False]]

SOURCE = "org.mitros.writing_analytics"
BY_STUDENT = Scope([KeyField.STUDENT])
BY_DOCUMENT = Scope([KeyField.STUDENT, EventField("doc_id")])

DOCUMENT_ID_MAX = 256  # characters; Google's have 44. Longer ones would swell every list of them
TIME_MAX_S = 1e11  # the year 5138; a time in milliseconds lies far above


def event_time(event: Event) -> float | None:
    """When the server received the event, in seconds since 1970 (`server.time`).

    The browser's `client.timestamp` is not used: every machine has a clock of its own, often
    wrong, and a student can set it, whereas the server's clock is one for the whole class.

    `None` where the time is missing, no number, not positive, or beyond `TIME_MAX_S`.
    """
    server = event.get("server")
    time: Any = server.get("time") if isinstance(server, dict) else None
    if type(time) not in (float, int):  # a bool is no time, though Python counts it as an int
        return None
    return float(time) if 0 < time < TIME_MAX_S else None  # NaN compares as false


def document_id(event: Event) -> str | None:
    """The document that the event happened in (`client.doc_id`).

    `None` where it is missing, empty, no text, longer than `DOCUMENT_ID_MAX`, or where it has
    no UTF-8 form (half an emoji), so that no state could hold it.
    """
    client = event.get("client")
    found = client.get("doc_id") if isinstance(client, dict) else None
    if not isinstance(found, str) or not 0 < len(found) <= DOCUMENT_ID_MAX:
        return None
    if not found.isascii():
        try:
            found.encode()
        except UnicodeEncodeError:
            return None
    return found


def saved_commands(event: Event) -> Iterator[object]:
    """The commands of a `google_docs_save`, bundle after bundle; of any other event, none.

    Each should be a dict with its type under `ty`, but nobody has checked that. What stands
    in the place of bundles, of a bundle or of its commands is given out as one command, so
    that it is counted as bad.
    """
    client = event.get("client")
    if not isinstance(client, dict) or client.get("event") != "google_docs_save":
        return
    bundles = client.get("bundles")
    for bundle in bundles if isinstance(bundles, list) else [bundles]:
        commands = bundle.get("commands") if isinstance(bundle, dict) else None
        if isinstance(commands, list):
            yield from commands
        else:
            yield bundle
