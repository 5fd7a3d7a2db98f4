"""Scopes: which state of a reducer an event belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from lo_kvs.stream_analytics.engine.fold import Reducer, StateKeys
from lo_kvs.stream_analytics.fields import (
    EventField,
    Field,
    KeyField,
    KeyStateType,
    Scope,
    ScopeFieldError,
)
from lo_kvs.stream_analytics.keys import bounded_key, made_text

#: The student ID of an event without a student.
GUEST: Final = "[guest]"
#: How many states a reducer caches the keys of, to avoid building them for each event; the
#: characters in all of them, and in those of one state.
KEYS_KEPT_MAX: Final = 10_000
CHARACTERS_KEPT_MAX: Final = 4_000_000
CHARACTERS_OF_ONE_MAX: Final = 16_384

T = TypeVar("T")


class Kept(Generic[T]):
    """A cache of objects built for states, bounded in number and in characters.

    known  the objects, by the field values that they were built for
    """

    __slots__ = ("_characters", "known")

    def __init__(self) -> None:
        self.known: dict[Any, T] = {}
        self._characters = 0

    def keep(self, chosen: Any, made: T, texts: Iterable[str | None]) -> None:
        """Cache `made` for the field values `chosen`; `texts` are the strings in both."""
        characters = sum(len(text) for text in texts if text is not None)
        if characters > CHARACTERS_OF_ONE_MAX:
            return
        self._characters += characters
        if len(self.known) >= KEYS_KEPT_MAX or self._characters > CHARACTERS_KEPT_MAX:
            self.known.clear()
            self._characters = characters
        self.known[chosen] = made


class BadEvent(ValueError):
    """The input is not a valid event; the message says why. Nothing was reduced."""


class KeyedReducer:
    """A reducer with its scope. A decorated function has it as its attribute `_kvs_keyed`."""

    def __init__(self, reducer: Reducer, scope: Scope) -> None:
        self.reducer = reducer
        self.scope = scope
        self.event_fields = [field.event for field in scope if isinstance(field, EventField)]
        self._kept: Kept[StateKeys] = Kept()
        self._known = self._kept.known

    def keys(
        self, metadata: Mapping[str, Any] | None, event_fields: Mapping[str, Any] | None
    ) -> StateKeys:
        """The keys of the state that an event belongs to.

        Raises `ScopeFieldError`, and `InvalidKey` if a value is too long.
        """
        return self.keys_of(student_of(metadata), event_fields)

    def keys_of(self, student: str, event_fields: Mapping[str, Any] | None) -> StateKeys:
        """The same for a known student."""
        # Building a key takes longer than reducing a small event, and few keys are new.
        fields = event_fields or {}
        chosen = (student, *[text_of(fields.get(name)) for name in self.event_fields])
        keys = self._known.get(chosen)
        if keys is None:
            values = self._values(student, fields)
            keys = StateKeys(
                bounded_key(self.reducer.name, values, KeyStateType.INTERNAL),
                bounded_key(self.reducer.name, values, KeyStateType.EXTERNAL),
            )
            self._kept.keep(chosen, keys, chosen + keys)
        return keys

    def _values(self, student: str, event_fields: Mapping[str, Any]) -> dict[Field, object]:
        """The value of each field of the scope; a missing event field is the text `None`."""
        values: dict[Field, object] = {}
        for field in self.scope:
            if isinstance(field, EventField):
                values[field] = event_fields.get(field.event)
            elif field is KeyField.STUDENT:
                values[field] = student
            else:
                raise ScopeFieldError(
                    f"events do not contain a {field.value}; "
                    "use KeyField.STUDENT and EventFields in a reducer's scope"
                )
        return values


def student_of(metadata: Mapping[str, Any] | None) -> str:
    """The student ID that the events of this source are counted for."""
    auth = member_of(metadata, "auth") if metadata else None
    student = member_of(auth, "safe_user_id") if is_mapping(auth) else None
    return GUEST if student is None else text_of(student)


def text_of(value: object) -> str:
    """The text of a value in keys. Raises `InvalidKey`."""
    return value if type(value) is str else made_text(value)


def named_student(metadata: Mapping[str, Any]) -> str:
    """The same for an event from outside the process. Raises `BadEvent` for invalid metadata.

    If a source named students in another way, counting its events for `[guest]` would put all
    of them into one state.
    """
    auth = member_of(metadata, "auth")
    if auth is None:
        return GUEST
    if not is_mapping(auth):
        raise BadEvent(f"`metadata.auth` must be an object, got {type(auth).__name__}")
    student = member_of(auth, "safe_user_id")
    if type(student) is str:
        return student
    if student is None:
        return GUEST
    if type(student) is int:
        return text_of(student)
    raise BadEvent(f"`metadata.auth.safe_user_id` must be text, got {type(student).__name__}")


def is_mapping(value: object) -> bool:
    """Whether `value` is a mapping. Dicts are checked first, as the abstract class is slow."""
    return type(value) is dict or isinstance(value, Mapping)


def member_of(mapping: Any, name: str) -> Any:
    """`mapping.get(name)`; for a dict, the usual case, compiled to a direct call."""
    if type(mapping) is dict:
        known: dict[str, Any] = mapping
        return known.get(name)
    return mapping.get(name)
