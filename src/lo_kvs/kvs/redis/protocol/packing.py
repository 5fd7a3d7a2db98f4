"""Pack a group of changes into one command that calls `lua/commit.lua`.

As for the codec there are two implementations: `_packing` is compiled and copies each byte once,
into the send buffer; `pack_purely` does the same with lists and hiredis. The packed arguments
follow the digest, or the text, of the script:

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
#: A packed change: the key of its guard, and the callback for its outcome.
PackedChange: TypeAlias = tuple[str, Callable[[Outcome], object]]
WaitingChanges: TypeAlias = deque[WaitingChange]
#: If a longer value is put, the script asks for the key's type instead of reading the key. That
#: takes a server as long as reading 600 bytes (0.85 us, and 1.15 ns per byte that Lua hashes).
READ_BYTES_MAX: Final = 512
#: Maps a key to its name in Redis, without the prefix.
Name: TypeAlias = Callable[[str], str]


class CommandHead(NamedTuple):
    """The first words of a command, packed, and their number."""

    packed: bytes
    words: int


class PackedCommand(NamedTuple):
    """A command as it is sent.

    command  the whole command
    words    the number of words after its head
    at       the position of the first word after its head
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
    """Move changes from the left end of `waiting` into `group`, and pack them after `begin`.

    Afterwards `group` has a `PackedChange` for each: keeping 1,000 changes and the texts that they
    replace until they are answered would fill the processor's caches.

    numbers      the call's number, record_ttl_ms, ttl_ms
    changes_max  maximum number of changes
    bytes_max    no further change once the changes have this size
    large_bytes  stop at the first change of this size

    No two changes of a call have a key in common: the script reads all keys before it writes.
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
    """The size of a change: its expected and new values together."""
    size = len(expected) if isinstance(expected, bytes) else 0
    return size + sum(len(put) for put in puts.values() if put is not None)


def _is_read(put: bytes | None) -> bool:
    """Whether the script reads the key of this put (it does not read removed keys)."""
    return put is not None and len(put) <= READ_BYTES_MAX


if codec.COMPILED:
    from lo_kvs.kvs.redis.protocol._packing import change_of, pack
else:
    pack = pack_purely
    change_of = Change

__all__ = [
    "CommandHead",
    "Name",
    "PackedChange",
    "PackedCommand",
    "WaitingChange",
    "WaitingChanges",
    "change_of",
    "pack",
    "pack_purely",
    "size_of",
]
