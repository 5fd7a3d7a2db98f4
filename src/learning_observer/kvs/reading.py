"""Plain commands that read: the values of many keys, and the names of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiredis import pack_command

from learning_observer.kvs.conversation import Connection, ProtocolMismatch, good, reply_on


async def read(connection: Connection, names: Sequence[bytes]) -> list[bytes | int | None]:
    """The bytes under each name, `None` where it is absent, 0 where it holds no string."""
    (found,) = await _ask(connection, [("MGET", *names)])
    if not isinstance(found, list) or len(found) != len(names):
        raise ProtocolMismatch("MGET", found)
    # MGET answers nil for a list or a hash as well; those must not look absent.
    unsure = [at for at, data in enumerate(found) if data is None]
    if unsure:
        kinds = await _ask(connection, [("TYPE", names[at]) for at in unsure])
        for at, kind in zip(unsure, kinds, strict=True):
            # A string came since: the key was absent when it was read.
            if kind not in {b"none", b"string"}:
                found[at] = 0
    return found


async def scan(connection: Connection, *, cursor: bytes, pattern: str) -> tuple[bytes, list[bytes]]:
    """One step of SCAN over the keys that hold strings: the next cursor, and some keys."""
    words = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "string")
    (reply,) = await _ask(connection, [words])
    if not isinstance(reply, list) or len(reply) != 2:
        raise ProtocolMismatch("SCAN", reply)
    return reply[0], reply[1]


async def _ask(connection: Connection, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
    """The reply to each of the commands, which leave together; the first error is raised."""
    packed = [pack_command(words) for words in commands]
    await connection.send_packed_command(packed, check_health=False)
    return good([await reply_on(connection) for _ in commands])
