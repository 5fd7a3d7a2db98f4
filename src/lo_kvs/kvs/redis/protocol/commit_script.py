"""Call: one numbered commit made by the script `lua/commit.lua`, packed and sent as it is.

A script is called by its digest (EVALSHA). A server that does not know it answers NOSCRIPT
without doing anything; then the full text is sent (EVAL).
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
from lo_kvs.kvs.redis.protocol.packing import CommandHead, Name, PackedChange, PackedCommand, pack
from lo_kvs.kvs.redis.protocol.round_trips import (
    Outcomes,
    ProtocolMismatch,
    Rounds,
    RoundTrip,
    good,
)


@dataclass(frozen=True)
class Script:
    """A file in `lua/`: its exact text, and the digest by which Redis identifies it."""

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
        """The start of a call to a server that knows the script."""
        return _begin("EVALSHA", self.digest)

    @functools.cached_property
    def by_text(self) -> CommandHead:
        """The same with the full text of the script."""
        return _begin("EVAL", self.text)


def _begin(*words: str | bytes) -> CommandHead:
    every: Any = words  # hiredis takes any number
    packed = pack_command(every)
    return CommandHead(packed[packed.index(b"\n") + 1 :], len(words))


#: The size of a call is limited, so that one script never blocks the server for long.
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024
#: No limit: no change is this large.
UNBOUNDED: Final = sys.maxsize
#: A record must outlive every attempt to send its call, and also bytes of a dropped connection
#: that reach the server after the last attempt.
RECORD_TTL_MIN_MS: Final = 600_000

COMMIT: Final = Script.load("commit")


class WriterSettings(NamedTuple):
    """Settings that all calls of one writer share.

    record         the name of the writer's record; unique
    prefix         prefix of the keys
    ttl_ms         TTL of values that are written; 0: they do not expire
    record_ttl_ms  TTL of the record; longer than the writer may retry a call
    changes_max    maximum number of changes in one call
    name           maps a key to the name after the prefix, if they differ
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
    """One numbered commit, packed; a retry sends exactly the same bytes.

    group   the guard key and callback of each change
    packed  the command with the script's digest: KEYS, number and TTLs, layout, values
    """

    group: list[PackedChange]
    packed: PackedCommand

    def by_digest(self) -> bytes:
        """The call as one command, for a server that knows the script."""
        return self.packed.command

    def by_text(self) -> bytes:
        """The same for a server that does not know the script."""
        text, count = COMMIT.by_text
        command, words, at = self.packed
        return b"*%d\r\n%b%b" % (count + words, text, command[at:])

    def rounds(self) -> Rounds[Outcomes]:
        """Run `lua/commit.lua`. Returns one letter per change, and details: for each `n` the
        current bytes of the guard key, for each `t` the key that does not hold a string. The
        details are `None` if the call had been made before and only its record answered.
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

    Moves as many changes as one call may have from the left end of `waiting` into `group`, and
    stops at the first change of `large_bytes` or more.
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
    """The outcomes in the reply to a call of this group."""
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
    """Whether `detail` is valid: the value of a guard key, or the name of a key."""
    return isinstance(detail, bytes) or (detail is None and letter == "n")
