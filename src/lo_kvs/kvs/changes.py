"""Keys, changes and outcomes: the arguments of a store's `read` and `commit`, and their checks."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from typing import Final, NamedTuple, TypeAlias, TypeVar

from lo_kvs.kvs.errors import InvalidArgument, InvalidKey, KVSError, shorten

Item = TypeVar("Item")

#: Keys with this prefix are internal: no store accepts or lists them.
RESERVED_PREFIX: Final = "__lokvs:"
#: The longest key, in bytes of UTF-8. Every cached state keeps its keys in memory.
KEY_BYTES_MAX: Final = 65_536


class Guard(enum.Enum):
    """A condition on the guard key other than its value."""

    ANY = enum.auto()  # no condition: the change is always made


class Change(NamedTuple):
    """One atomic change: write `puts` only if the guard key has the expected value.

    guard     the key that is compared
    expected  the bytes that were read there; `None`: it is absent; `Guard.ANY`: do not compare
    puts      the new values by key; `None` removes the key

    Bytes are `bytes` itself: no bytearray, no memoryview, no subclass. `commit` and `submit`
    raise `InvalidArgument` for anything else, before anything is written.
    """

    guard: str
    expected: bytes | Guard | None
    puts: Mapping[str, bytes | None]


class Conflict(NamedTuple):
    """A change that was not made: the guard key has the value `current` (`None`: absent)."""

    current: bytes | None


#: The outcome of one change: `None` if it was made, `Conflict` if the guard key has another value,
#: or the error of this change.
Outcome: TypeAlias = Conflict | KVSError | None


def check_key(key: str) -> str:
    """`key` as a plain `str`. Raises `InvalidKey`."""
    if type(key) is str and key.isascii() and len(key) <= KEY_BYTES_MAX:
        if not key.startswith(RESERVED_PREFIX):
            return key  # the fast path for nearly all keys
    elif type(key) is not str:
        if not isinstance(key, str):
            raise InvalidKey(key, f"expected str, got {type(key).__name__}")
        key = str.__str__(key)  # a subclass may override comparison, hash or `startswith`
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
            key, f"it has {size:,} bytes; the maximum is {KEY_BYTES_MAX:,}. Use a hash of it"
        )
    return key


def is_key(text: str) -> bool:
    """Whether a text that has a UTF-8 form is a valid key; stores list only valid keys."""
    return (
        len(text) <= KEY_BYTES_MAX
        and not text.startswith(RESERVED_PREFIX)
        and (text.isascii() or len(text.encode()) <= KEY_BYTES_MAX)
    )


def check_keys(keys: Iterable[str]) -> list[str]:
    """The keys as plain `str`. Raises `InvalidKey` for the first invalid one."""
    return [check_key(key) for key in listed(keys, "keys")]


def check_changes(changes: Iterable[Change]) -> list[Change]:
    """Copies of the changes, which the caller cannot modify while they are queued.

    Raises `InvalidKey` for an invalid key, and `InvalidArgument` if anything else has the wrong
    type. Every store's `commit` and `submit` starts with this, so all stores refuse the same
    changes.
    """
    return [_checked(change) for change in listed(changes, "changes")]


def check_deadline(deadline: float | None) -> None:
    """Raise `InvalidArgument` if `deadline` is neither `None` nor a time of the event loop."""
    if deadline is None:
        return
    if not isinstance(deadline, float | int) or isinstance(deadline, bool) or isnan(deadline):
        raise InvalidArgument(
            "`deadline` must be a time of the event loop (`loop.time()` and some seconds) or "
            f"None, got {shorten(deadline)}"
        )


def listed(items: Iterable[Item], name: str) -> Sequence[Item]:
    """`items` as a list or a tuple. Raises `InvalidArgument` if they are not iterable."""
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
