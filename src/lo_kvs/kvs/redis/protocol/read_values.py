"""Plain commands that read the values of many keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from hiredis import pack_command

from lo_kvs.kvs.redis.protocol.round_trips import ProtocolMismatch, Rounds, RoundTrip, good

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
        maybe_applied = [at for at, data in enumerate(found) if type(data) is not bytes]
        if maybe_applied:
            if any(found[at] is not None for at in maybe_applied):
                raise ProtocolMismatch("MGET", found)
            kinds = b"".join(_packed("TYPE", self.names[at]) for at in maybe_applied)
            for at, kind in zip(
                maybe_applied, good((yield RoundTrip(kinds, len(maybe_applied)))), strict=True
            ):
                if not isinstance(kind, bytes):
                    raise ProtocolMismatch("TYPE", kind)
                # A string came since: the key was absent when it was read.
                if kind not in {b"none", b"string"}:
                    found[at] = 0
        return found


def _packed(*words: Any) -> bytes:
    packed: bytes = pack_command(words)
    return packed
