"""Keys and changes: what a store is told to do, and what became of it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Final, NamedTuple, TypeAlias, TypeVar

from lo_kvs.kvs.errors import InvalidArgument, InvalidKey, KVSError, shorten

Item = TypeVar("Item")

#: Keys that begin so belong to the stores' own machinery: no store takes or lists them.
RESERVED_PREFIX: Final = "__lokvs:"
#: The longest key, in bytes of UTF-8. Every state that is held in memory holds its keys.
KEY_BYTES_MAX: Final = 65_536


class Guard(enum.Enum):
    """What a change may demand of its guard key, besides certain bytes."""

    ANY = enum.auto()  # nothing: the change is made whatever stands there


class Change(NamedTuple):
    """One atomic change: `puts`, made only if the guard key holds what is expected.

    guard     the key that is looked at
    expected  the bytes that were read there; `None`: it is absent; `Guard.ANY`: no matter
    puts      what to put under which keys; `None` removes the key

    Bytes are `bytes` itself: no bytearray, no memoryview, no subclass. `commit` and `submit`
    raise `InvalidArgument` for anything else, before anything is written.
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
    """`key` as a plain `str`, or `InvalidKey` where it can be no key."""
    if type(key) is str and key.isascii() and len(key) <= KEY_BYTES_MAX:
        if not key.startswith(RESERVED_PREFIX):
            return key  # as nearly all are: this spares the rest
    elif type(key) is not str:
        if not isinstance(key, str):
            raise InvalidKey(key, f"expected str, got {type(key).__name__}")
        key = str.__str__(key)  # a subclass may compare, hash or begin otherwise
    if key.startswith(RESERVED_PREFIX):
        raise InvalidKey(key, f"{RESERVED_PREFIX!r} is reserved for the store itself")
    size = len(key)
    if not key.isascii():
        try:
            size = len(key.encode())
        except UnicodeEncodeError as error:
            raise InvalidKey(
                key, f"it has no UTF-8 form ({error.reason}, character {error.start})"
            ) from None
    if size > KEY_BYTES_MAX:
        raise InvalidKey(
            key, f"it has {size:,} bytes, and a key has {KEY_BYTES_MAX:,} at most; use a hash of it"
        )
    return key


def is_key(text: str) -> bool:
    """Whether text that has a UTF-8 form can be a key: what stores list, of all that they find."""
    return (
        len(text) <= KEY_BYTES_MAX
        and not text.startswith(RESERVED_PREFIX)
        and (text.isascii() or len(text.encode()) <= KEY_BYTES_MAX)
    )


def check_keys(keys: Iterable[str]) -> list[str]:
    """The keys as plain texts; `InvalidKey` for the first that can be none."""
    return [check_key(key) for key in listed(keys, "keys")]


def check_changes(changes: Iterable[Change]) -> list[Change]:
    """Copies of the changes, which nobody else can alter while they wait.

    Raises `InvalidKey` where one names a key that can be none, and `InvalidArgument` where
    anything else has the wrong type. Every store's `commit` and `submit` begins with this, so a
    guard that Redis would not understand is refused everywhere.
    """
    return [_checked(change) for change in listed(changes, "changes")]


def check_deadline(deadline: float | None) -> None:
    """`InvalidArgument` where `deadline` is neither `None` nor a time of the event loop."""
    if deadline is None:
        return
    if not isinstance(deadline, float | int) or isinstance(deadline, bool) or isnan(deadline):
        raise InvalidArgument(
            "`deadline` must be a time of the event loop (`loop.time()` and some seconds) or "
            f"None, got {shorten(deadline)}"
        )


def listed(items: Iterable[Item], name: str) -> Sequence[Item]:
    """`items` as a list or a tuple. `InvalidArgument` where they cannot be iterated over."""
    if type(items) is list or type(items) is tuple:
        return items
    if not isinstance(items, Iterable):
        raise InvalidArgument(f"`{name}` must be an iterable, got {type(items).__name__}")
    return list(items)


def _checked(change: Change) -> Change:
    if type(change) is not Change and not isinstance(change, Change):
        raise InvalidArgument(f"expected a Change, got {type(change).__name__}")
    guard, expected, puts = change
    name = check_key(guard)
    if type(expected) is not bytes and expected is not None and expected is not Guard.ANY:
        raise InvalidArgument(
            f"`expected` of the change of {shorten(guard)} must be bytes, None or Guard.ANY, "
            f"got {type(expected).__name__}"
        )
    if type(puts) is dict:
        copy = puts.copy()
    elif isinstance(puts, Mapping):
        copy = dict(puts)
    else:
        raise InvalidArgument(
            f"`puts` of the change of {shorten(guard)} must be a mapping of keys to bytes or None, "
            f"got {type(puts).__name__}"
        )
    for key, data in copy.items():
        if data is not None and type(data) is not bytes:
            raise InvalidArgument(
                f"the value that is put under {shorten(key)} must be bytes or None, "
                f"got {type(data).__name__}; bytes(...) converts it"
            )
        if key is not name and check_key(key) is not key:  # a subclass of str
            copy = {check_key(each): put for each, put in copy.items()}
            break
    return _new_change(Change, (name, expected, copy))


# A quarter of the time that `Change(...)` takes.
_new_change: Final = tuple.__new__
