"""Packing a group of changes into the words of one call of `lua/commit.lua`.

There are two twins, as of the codec: `_packing` is compiled and copies each byte once, to where
it leaves from; `pack_purely` does the same with lists and hiredis. What is packed follows the
digest, or the text, of the script:

    numkeys, KEYS: the record, those that are read, the others, ARGV: the numbers, layout, bytes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from hiredis import pack_command

from lo_kvs.kvs import codec
from lo_kvs.kvs.batching.batcher import Pending
from lo_kvs.kvs.changes import Change, Outcome

WaitingChange: TypeAlias = Pending[Change, Outcome]
#: What is left of a change that has been packed: the key of its guard, and what is called with
#: its outcome.
Told: TypeAlias = tuple[str, Callable[[Outcome], object]]
WaitingChanges: TypeAlias = deque[WaitingChange]
#: What is put under a key and is longer: the key is not read, but asked for its kind. That takes
#: a server as long as to read some 600 bytes (0.85 us, and 1.15 ns for each byte that Lua hashes).
READ_BYTES_MAX: Final = 512
#: From a key to the one that stands in Redis, the prefix aside.
Name: TypeAlias = Callable[[str], str]


class CommandHead(NamedTuple):
    """The words that stand before those of a call, packed, and how many they are."""

    packed: bytes
    words: int


class PackedCommand(NamedTuple):
    """A call as it is sent.

    command  all of it
    words    how many words follow those that it begins with
    at       where those words begin
    """

    command: bytes
    words: int
    at: int


def pack_purely(  # noqa: PLR0917 - as the compiled one
    begin: CommandHead,
    waiting: WaitingChanges,
    group: list[Any],
    prefix: bytes,
    record: bytes,
    numbers: tuple[int, ...],
    /,
    changes_max: int,
    bytes_max: int,
    large_bytes: int,
    name: Name | None = None,
) -> PackedCommand:
    """Move changes from the left end of `waiting` into `group`, and pack them behind `begin`.

    Then `group` has what is left of them, a `Told` each: a thousand changes and the texts that
    they replace would fill the processor's caches until they are answered.

    numbers      of the call: its own, record_ttl_ms, ttl_ms
    changes_max  changes at most; `bytes_max`: no change more when they have so many bytes
    large_bytes  no change, and none after it, that has so many bytes

    No two changes of a call name the same key: the script looks at all keys before it
    writes any.
    """
    keys: list[bytes] = [record]
    unread: list[bytes] = []
    args: list[bytes] = []
    named: set[str] = set()
    layout: list[str] = []
    size = 0
    while waiting and len(group) < changes_max and size < bytes_max:
        guard, expected, puts = waiting[0][0]
        if guard in named or not named.isdisjoint(puts):
            break
        if size_of(expected, puts) >= large_bytes:
            break
        group.append(waiting.popleft())
        named.add(guard)
        named.update(puts)
        if expected is None:
            letter = "n"
        elif isinstance(expected, bytes):
            letter = "v"
            args.append(expected)
            size += len(expected)
        else:
            letter = "a" if _is_read(puts.get(guard)) else "A"
        layout.append(letter)
        words = unread if letter == "A" else keys
        words.append(prefix + (guard if name is None else name(guard)).encode())
        before: bytes | None = None
        for key, put in puts.items():
            own = key == guard
            read = _is_read(put)
            if not own:
                words = keys if read else unread
                words.append(prefix + (key if name is None else name(key)).encode())
            if put is None:
                layout.append("d" if own else "X")
            elif put is before and not own:
                layout.append("r" if read else "R")
            else:
                layout.append("g" if own else "s" if read else "S")
                args.append(put)
                size += len(put)
                before = put
        layout.append(".")
    every: Any = (  # hiredis takes any number
        *(len(keys) + len(unread), *keys, *unread),
        *(*numbers, len(keys) - 1, "".join(layout), *args),
    )
    packed = pack_command(every)
    group[:] = [(each[0].guard, each[1]) for each in group]
    head = b"*%d\r\n%b" % (begin.words + len(every), begin.packed)
    return PackedCommand(head + packed[packed.index(b"\n") + 1 :], len(every), len(head))


def size_of(expected: object, puts: Mapping[str, bytes | None]) -> int:
    """The bytes of a change, those expected and those put together."""
    size = len(expected) if isinstance(expected, bytes) else 0
    return size + sum(len(put) for put in puts.values() if put is not None)


def _is_read(put: bytes | None) -> bool:
    """Whether the key under which this is put, or which is removed, is read by the script."""
    return put is not None and len(put) <= READ_BYTES_MAX


if codec.COMPILED:
    from lo_kvs.kvs.redis.protocol._packing import change_of, pack
else:
    pack = pack_purely
    change_of = Change

__all__ = [
    "CommandHead",
    "Name",
    "PackedCommand",
    "Told",
    "WaitingChange",
    "WaitingChanges",
    "change_of",
    "pack",
    "pack_purely",
    "size_of",
]
