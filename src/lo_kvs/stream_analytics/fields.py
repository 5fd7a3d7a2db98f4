"""The parts that a key is made of: which state it holds, and whose.

Internal,writing.reconstruct,EventField.doc_id:D,STUDENT:S
^ KeyStateType               ^ EventField        ^ KeyField
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

from lo_kvs.kvs.errors import shorten


class ScopeFieldError(Exception):
    """A scope names a field that has no value, or that is no field at all."""


class KeyStateType(enum.Enum):
    """Which half of a reducer's state a key holds."""

    INTERNAL = "Internal"  # what the reducer needs for its next event
    EXTERNAL = "External"  # what dashboards read


class KeyField(enum.Enum):
    """An entity that the system knows: who or what a state is about."""

    STUDENT = "STUDENT"
    CLASS = "CLASS"
    RESOURCE = "RESOURCE"
    TEACHER = "TEACHER"


@dataclass(frozen=True, slots=True)
class EventField:
    """A value that the event brings along, such as `EventField("doc_id")`.

    Two of the same event field are equal. Raises `ScopeFieldError` for an empty name and
    for one with a comma or a colon: keys could not be taken apart again.
    """

    event: str

    def __post_init__(self) -> None:
        if not isinstance(self.event, str) or not self.event or set(self.event) & set(",:"):
            raise ScopeFieldError(
                f"an EventField needs a name without commas and colons, got {shorten(self.event)}"
            )

    @property
    def name(self) -> str:
        """The field's name in keys: `EventField.doc_id`."""
        return f"EventField.{self.event}"


Field: TypeAlias = KeyField | EventField


class Scope(frozenset[Field]):
    """The fields that tell one state of a reducer from another: one state for each
    combination of their values. `Scope([KeyField.STUDENT, EventField("doc_id")])` is a
    state for each document of each student; the empty scope is one state for all.
    """
