"""Values: reads the values of many keys with plain commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from hiredis import pack_command

from lo_kvs.kvs.redis.protocol.round_trips import ProtocolMismatch, Rounds, RoundTrip, good

#: The bytes of each name; `None` if it is absent, 0 if it is not a string.
Contents: TypeAlias = list[bytes | int | None]


class Values(NamedTuple):
    """The values under some names in Redis."""

    names: Sequence[bytes]

    def rounds(self) -> Rounds[Contents]:
        """Read them: one round trip, and a second one if a key seems to be absent."""
        if not self.names:
            return []
        (found,) = good((yield RoundTrip(_packed("MGET", *self.names))))
        if not isinstance(found, list) or len(found) != len(self.names):
            raise ProtocolMismatch("MGET", found)
        # MGET answers nil for a list or a hash as well; those must not look absent.
        uncertain = [at for at, data in enumerate(found) if type(data) is not bytes]
        if uncertain:
            if any(found[at] is not None for at in uncertain):
                raise ProtocolMismatch("MGET", found)
            kinds = b"".join(_packed("TYPE", self.names[at]) for at in uncertain)
            for at, kind in zip(
                uncertain, good((yield RoundTrip(kinds, len(uncertain)))), strict=True
            ):
                if not isinstance(kind, bytes):
                    raise ProtocolMismatch("TYPE", kind)
                # "string": it was written since; the key was absent when it was read.
                if kind not in {b"none", b"string"}:
                    found[at] = 0
        return found


def _packed(*words: Any) -> bytes:
    packed: bytes = pack_command(words)
    return packed
