"""One typed conversation for each file in `lua/`.

A script is sent as its digest (EVALSHA); a server that does not know it yet answers
NOSCRIPT, has done nothing, and gets the whole text (EVAL).
"""

from __future__ import annotations

import functools
import hashlib
import sys
from collections import deque
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NamedTuple

from hiredis import pack_command
from redis.exceptions import NoScriptError

from learning_observer.kvs.changes import Change, Outcome
from learning_observer.kvs.conversation import (
    Outcomes,
    ProtocolMismatch,
    Rounds,
    RoundTrip,
    good,
)
from learning_observer.kvs.grouping import CHANGES
from learning_observer.kvs.lane import Waiting
from learning_observer.kvs.packing import Name, pack


@dataclass(frozen=True)
class Script:
    """A file of `lua/`: its text, to a byte, and the digest that Redis knows it by."""

    name: str
    text: bytes
    digest: str

    @classmethod
    def load(cls, name: str) -> Script:
        """The script in `lua/<name>.lua`."""
        text = resources.files("learning_observer.lua").joinpath(f"{name}.lua").read_bytes()
        return cls(name, text, hashlib.sha1(text, usedforsecurity=False).hexdigest())

    def begin_by_digest(self, words: int) -> bytes:
        """What stands before so many words of a call, where the server knows the script."""
        return _begin(words, "EVALSHA", self.digest)

    def begin_by_text(self, words: int) -> bytes:
        """The same, with the script's whole text."""
        return _begin(words, "EVAL", self.text)


@functools.lru_cache(256)
def _begin(words: int, *named: Any) -> bytes:
    packed: bytes = pack_command(named)
    return b"*%d%b" % (words + len(named), packed[packed.index(b"\r") :])


#: A call is bounded in bytes as well, so that one script never holds the server up for long.
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024
#: No change is that large.
UNBOUNDED: Final = sys.maxsize

COMMIT: Final = Script.load("commit")


class Call(NamedTuple):
    """One numbered commit, packed: it is sent again as it is, or not at all.

    group   the changes that it makes, with what is called with their outcomes
    words   how many words follow the script's name
    packed  those words: KEYS, the number and the TTLs, the layout and the bytes
    """

    group: list[Waiting[Change, Outcome]]
    words: int
    packed: bytes

    def by_digest(self) -> bytes:
        """The call as one command, for a server that knows the script."""
        return COMMIT.begin_by_digest(self.words) + self.packed

    def by_text(self) -> bytes:
        """The same, for one that does not know it."""
        return COMMIT.begin_by_text(self.words) + self.packed

    def rounds(self) -> Rounds:
        """`lua/commit.lua`: the outcome of each change, a letter each, and for each `n` the
        bytes that the guard key holds, for each `t` the key that holds no string; `None`
        instead of those when the call had been made before, and only its record answered.
        """
        (reply,) = yield RoundTrip(self.by_digest())
        if isinstance(reply, NoScriptError):
            (reply,) = yield RoundTrip(self.by_text())
        return outcomes_of(self, good([reply])[0])


def packed_call(
    waiting: deque[Waiting[Change, Outcome]],
    group: list[Waiting[Change, Outcome]],
    *,
    prefix: bytes,
    record: bytes,
    number: int,
    record_ttl_ms: int,
    ttl_ms: int,
    changes_max: int = CHANGES,
    bytes_max: int = GROUP_BYTES_MAX,
    large_bytes: int = UNBOUNDED,
    name: Name | None = None,
) -> Call:
    """The call `number` of the writer that has this record.

    As many changes as a call may have, `changes_max` at most, move from the left end of
    `waiting` into `group`; none from the first on that has `large_bytes` or more. `name` makes
    of a key the one that stands in Redis behind the prefix, where they differ.
    """
    words, packed = pack(
        waiting,
        group,
        prefix,
        record,
        (number, record_ttl_ms, ttl_ms),
        changes_max,
        bytes_max,
        large_bytes,
        name,
    )
    return Call(group, words, packed)


def outcomes_of(call: Call, reply: object) -> Outcomes:
    """What the conversation returns, from the reply to the call."""
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], bytes):
        raise ProtocolMismatch("commit.lua", reply)
    outcomes = reply[0].decode()
    if len(outcomes) != len(call.group):
        raise ProtocolMismatch("commit.lua", reply)
    details = len(outcomes) - outcomes.count("c")
    return outcomes, (reply[1:] if len(reply) == 1 + details else None)
