"""Packing a group of changes into the words of one call of `lua/commit.lua`.

There are two twins, as of the codec: `_packing` is compiled and writes straight into one
buffer, `pack_purely` does the same with lists and hiredis. What is packed follows the
digest, or the text, of the script:

    numkeys, KEYS: the record, then those of the changes, ARGV: the numbers, layout, bytes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from hiredis import pack_command

from learning_observer.kvs import codec
from learning_observer.kvs.changes import Change, Outcome
from learning_observer.kvs.lane import Waiting

WaitingChange: TypeAlias = Waiting[Change, Outcome]
WaitingChanges: TypeAlias = deque[WaitingChange]
#: From a key to the one that stands in Redis, the prefix aside.
Name: TypeAlias = Callable[[str], str]


def pack_purely(  # noqa: PLR0917 - as the compiled one
    waiting: WaitingChanges,
    group: list[WaitingChange],
    prefix: bytes,
    record: bytes,
    numbers: tuple[int, ...],
    /,
    changes_max: int,
    bytes_max: int,
    name: Name | None = None,
) -> tuple[int, bytes]:
    """Move changes from the left end of `waiting` into `group`, and pack them.

    numbers      of the call: its own, record_ttl_ms, ttl_ms
    changes_max  changes at most; `bytes_max`: no change more when they have so many bytes

    No two changes of a call name the same key: the script looks at all keys before it
    writes any. Returns how many words it is, and the words as they are sent.
    """
    keys: list[bytes] = [record]
    args: list[bytes] = []
    named: set[str] = set()
    layout: list[str] = []
    size = 0
    while waiting and len(group) < changes_max and size < bytes_max:
        guard, expected, puts = waiting[0][0]
        if guard in named or not named.isdisjoint(puts):
            break
        group.append(waiting.popleft())
        named.add(guard)
        named.update(puts)
        keys.append(prefix + (guard if name is None else name(guard)).encode())
        if expected is None:
            layout.append("n")
        elif isinstance(expected, bytes):
            layout.append("v")
            args.append(expected)
            size += len(expected)
        else:
            layout.append("a")
        before: bytes | None = None
        for key, put in puts.items():
            own = key == guard
            if not own:
                keys.append(prefix + (key if name is None else name(key)).encode())
            if put is None:
                layout.append("X" if own else "x")
            elif put is before and not own:
                layout.append("r")
            else:
                layout.append("S" if own else "s")
                args.append(put)
                size += len(put)
                before = put
        layout.append(".")
    words: Any = (len(keys), *keys, *numbers, "".join(layout), *args)  # hiredis takes any number
    packed = pack_command(words)
    return len(words), packed[packed.index(b"\n") + 1 :]


if codec.COMPILED:
    from learning_observer.kvs._packing import change_of, pack
else:
    pack = pack_purely
    change_of = Change

__all__ = ["Name", "WaitingChange", "WaitingChanges", "change_of", "pack", "pack_purely"]
