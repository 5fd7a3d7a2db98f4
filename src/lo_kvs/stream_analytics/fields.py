"""The parts of a key: which half of the state it is, and the fields that select the state.

Internal,writing.reconstruct,EventField.doc_id:D,STUDENT:S
^ KeyStateType               ^ EventField        ^ KeyField
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from lo_kvs.kvs.errors import shorten


class ScopeFieldError(Exception):
    """A scope names a field that has no value, or something that is not a field."""


class KeyStateType(enum.Enum):
    """Which half of a reducer's state a key holds."""

    INTERNAL = "Internal"  # what the reducer needs for its next event
    EXTERNAL = "External"  # what dashboards read


class KeyField(enum.Enum):
    """An entity that a state can belong to."""

    STUDENT = "STUDENT"
    CLASS = "CLASS"
    RESOURCE = "RESOURCE"
    TEACHER = "TEACHER"


@dataclass(frozen=True, slots=True)
class EventField:
    """A value from the event, such as `EventField("doc_id")`.

    Two instances of the same field are equal. Raises `ScopeFieldError` for an empty name and
    for a name with a comma or a colon, as keys could not be parsed again.
    """

    event: str

    def __post_init__(self) -> None:
        if not isinstance(self.event, str) or not self.event or set(self.event) & set(",:"):
            raise ScopeFieldError(
                f"an EventField needs a name without comma or colon, got {shorten(self.event)}"
            )

    @property
    def name(self) -> str:
        """The field's name in keys: `EventField.doc_id`."""
        return f"EventField.{self.event}"


Field: TypeAlias = KeyField | EventField


class Scope(frozenset[Field]):
    """The fields that select a state of a reducer: one state for each combination of values.

    `Scope([KeyField.STUDENT, EventField("doc_id")])` is one state per document and student;
    the empty scope is a single state for all events.
    """
