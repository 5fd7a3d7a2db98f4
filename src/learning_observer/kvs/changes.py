"""Keys and changes: what a store is told to do, and what became of it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from learning_observer.kvs.errors import InvalidKey, KVSError

#: Keys that begin so belong to the stores' own machinery: no store takes or lists them.
RESERVED_PREFIX: Final = "__lokvs:"


class Guard(enum.Enum):
    """What a change may demand of its guard key, besides certain bytes."""

    ANY = enum.auto()  # nothing: the change is made whatever stands there


class Change(NamedTuple):
    """One atomic change: `puts`, made only if the guard key holds what is expected.

    guard     the key that is looked at
    expected  the bytes that were read there; `None`: it is absent; `Guard.ANY`: no matter
    puts      what to put under which keys; `None` removes the key
    """

    guard: str
    expected: bytes | Guard | None
    puts: Mapping[str, bytes | None]


class Conflict(NamedTuple):
    """A change that was not made: the guard key holds `current` (`None`: it is absent)."""

    current: bytes | None


#: What became of one change: `None` it was made, `Conflict` it was not, because the guard
#: key holds something else, or the error that befell this change alone.
Outcome: TypeAlias = Conflict | KVSError | None


def check_key(key: str) -> str:
    """`key`, or `InvalidKey` where it can be no key."""
    if not isinstance(key, str):
        raise InvalidKey(key, f"expected str, got {type(key).__name__}")
    if key.startswith(RESERVED_PREFIX):
        raise InvalidKey(key, f"{RESERVED_PREFIX!r} is reserved for the store itself")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise InvalidKey(
                key, f"it has no UTF-8 form ({error.reason}, character {error.start})"
            ) from None
    return key


def check_changes(changes: Iterable[Change]) -> None:
    """`InvalidKey` where any of the changes names a key that can be none."""
    for change in changes:
        check_key(change.guard)
        for key in change.puts:
            check_key(key)
