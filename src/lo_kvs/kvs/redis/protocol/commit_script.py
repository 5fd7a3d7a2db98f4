"""One typed conversation for each file in `lua/`.

A script is sent as its digest (EVALSHA); a server that does not know it yet answers
NOSCRIPT, has done nothing, and gets the whole text (EVAL).
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NamedTuple

from hiredis import pack_command
from redis.exceptions import NoScriptError

from lo_kvs.kvs.batching.batcher import Pending
from lo_kvs.kvs.changes import Change, Outcome
from lo_kvs.kvs.redis.batch_limits import CHANGES
from lo_kvs.kvs.redis.protocol.packing import CommandHead, Name, PackedCommand, Told, pack
from lo_kvs.kvs.redis.protocol.round_trips import (
    Outcomes,
    ProtocolMismatch,
    Rounds,
    RoundTrip,
    good,
)


@dataclass(frozen=True)
class Script:
    """A file of `lua/`: its text, to a byte, and the digest that Redis knows it by."""

    name: str
    text: bytes
    digest: str

    @classmethod
    def load(cls, name: str) -> Script:
        """The script in `lua/<name>.lua`."""
        text = resources.files("lo_kvs.lua").joinpath(f"{name}.lua").read_bytes()
        return cls(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())

    @functools.cached_property
    def by_digest(self) -> CommandHead:
        """What a call begins with, where the server knows the script."""
        return _begin("EVALSHA", self.digest)

    @functools.cached_property
    def by_text(self) -> CommandHead:
        """The same, with the script's whole text."""
        return _begin("EVAL", self.text)


def _begin(*words: str | bytes) -> CommandHead:
    every: Any = words  # hiredis takes any number
    packed = pack_command(every)
    return CommandHead(packed[packed.index(b"\n") + 1 :], len(words))


#: A call is bounded in bytes as well, so that one script never holds the server up for long.
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024
#: No change is that large.
UNBOUNDED: Final = sys.maxsize
#: A record outlives every attempt to send its call, and bytes that a dropped connection may
#: still bring to the server after the last of them.
RECORD_TTL_MIN_MS: Final = 600_000

COMMIT: Final = Script.load("commit")


class WriterSettings(NamedTuple):
    """What all calls of one writer share.

    record         the name of its record, which no writer used before
    prefix         of the keys
    ttl_ms         of the values that are put; 0: they do not expire
    record_ttl_ms  longer than the writer may go on sending a call again
    changes_max    changes of one call
    name           makes of a key the one that stands behind the prefix, where they differ
    """

    record: bytes
    prefix: bytes = b""
    ttl_ms: int = 0
    record_ttl_ms: int = RECORD_TTL_MIN_MS
    changes_max: int = CHANGES
    name: Name | None = None

    def name_of(self, key: str) -> bytes:
        """The name of a key in Redis."""
        return self.prefix + (key if self.name is None else self.name(key)).encode()


class Call(NamedTuple):
    """One numbered commit, packed: it is sent again as it is, or not at all.

    group   what is left of the changes that it makes
    packed  by the script's digest: KEYS, the number and the TTLs, the layout and the bytes
    """

    group: list[Told]
    packed: PackedCommand

    def by_digest(self) -> bytes:
        """The call as one command, for a server that knows the script."""
        return self.packed.command

    def by_text(self) -> bytes:
        """The same, for one that does not know it."""
        text, count = COMMIT.by_text
        command, words, at = self.packed
        return b"*%d\r\n%b%b" % (count + words, text, command[at:])

    def rounds(self) -> Rounds[Outcomes]:
        """`lua/commit.lua`: the outcome of each change, a letter each, and for each `n` the
        bytes that the guard key holds, for each `t` the key that holds no string; `None`
        instead of those when the call had been made before, and only its record answered.
        """
        (reply,) = yield RoundTrip(self.by_digest())
        if isinstance(reply, NoScriptError):
            (reply,) = yield RoundTrip(self.by_text())
        return outcomes_of(self.group, good([reply])[0])


def packed_call(
    waiting: deque[Pending[Change, Outcome]],
    group: list[Any],
    writer: WriterSettings,
    number: int,
    *,
    bytes_max: int = GROUP_BYTES_MAX,
    large_bytes: int = UNBOUNDED,
) -> Call:
    """The call `number` of a writer.

    As many changes as a call may have move from the left end of `waiting` into `group`; none
    from the first on that has `large_bytes` or more.
    """
    packed = pack(
        COMMIT.by_digest,
        waiting,
        group,
        writer.prefix,
        writer.record,
        (number, writer.record_ttl_ms, writer.ttl_ms),
        writer.changes_max,
        bytes_max,
        large_bytes,
        writer.name,
    )
    return Call(group, packed)


def outcomes_of(group: Sequence[object], reply: object) -> Outcomes:
    """What the conversation returns, from the reply to a call of this group."""
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], bytes):
        raise ProtocolMismatch("commit.lua", reply)
    letters, details = reply[0], reply[1:]
    made = letters.count(b"c")
    if len(letters) != len(group) or (made < len(letters) and letters.strip(b"cnt")):
        raise ProtocolMismatch("commit.lua", reply)
    outcomes = letters.decode()
    if made == len(letters) or not details:
        if details:
            raise ProtocolMismatch("commit.lua", reply)
        return outcomes, ([] if made == len(letters) else None)
    kinds = [letter for letter in outcomes if letter != "c"]
    if len(details) != len(kinds) or not all(map(_is_detail, kinds, details)):
        raise ProtocolMismatch("commit.lua", reply)
    return outcomes, details


def _is_detail(letter: str, detail: object) -> bool:
    """Whether this can be the bytes that a guard key holds, or the name of another kind of key."""
    return isinstance(detail, bytes) or (detail is None and letter == "n")
