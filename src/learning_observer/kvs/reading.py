"""Plain commands that read: the values of many keys, and the names of all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from hiredis import pack_command

from learning_observer.kvs.conversation import (
    Connection,
    ProtocolMismatch,
    Rounds,
    RoundTrip,
    good,
    reply_on,
)

#: The bytes under each name, `None` where it is absent, 0 where it holds no string.
Contents: TypeAlias = list[bytes | int | None]


class Values(NamedTuple):
    """The values under some names in Redis."""

    names: Sequence[bytes]

    def rounds(self) -> Rounds[Contents]:
        """Read them: one round trip, and one more where a key seems to be absent."""
        if not self.names:
            return []
        (found,) = good((yield RoundTrip(_packed("MGET", *self.names))))
        if not isinstance(found, list) or len(found) != len(self.names):
            raise ProtocolMismatch("MGET", found)
        # MGET answers nil for a list or a hash as well; those must not look absent.
        unsure = [at for at, data in enumerate(found) if data is None]
        if unsure:
            kinds = b"".join(_packed("TYPE", self.names[at]) for at in unsure)
            for at, kind in zip(unsure, good((yield RoundTrip(kinds, len(unsure)))), strict=True):
                # A string came since: the key was absent when it was read.
                if kind not in {b"none", b"string"}:
                    found[at] = 0
        return found


async def scan(connection: Connection, *, cursor: bytes, pattern: str) -> tuple[bytes, list[bytes]]:
    """One step of SCAN over the keys that hold strings: the next cursor, and some keys."""
    words = _packed("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "string")
    await connection.send_packed_command([words], check_health=False)
    (reply,) = good([await reply_on(connection)])
    if not isinstance(reply, list) or len(reply) != 2:
        raise ProtocolMismatch("SCAN", reply)
    return reply[0], reply[1]


def _packed(*words: Any) -> bytes:
    packed: bytes = pack_command(words)
    return packed
