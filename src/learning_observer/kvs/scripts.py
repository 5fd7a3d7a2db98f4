"""One typed coroutine for each file in `lua/`.

A script is sent as its digest (EVALSHA); a server that does not know it yet answers
NOSCRIPT, has done nothing, and gets the whole text (EVAL).
"""

from __future__ import annotations

import functools
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol

from hiredis import pack_command
from redis.exceptions import NoScriptError

from learning_observer.kvs.changes import Change, Outcome
from learning_observer.kvs.grouping import CHANGES
from learning_observer.kvs.lane import Waiting
from learning_observer.kvs.packing import Name, pack


class Connection(Protocol):
    """What is needed of a redis-py connection: one command, one reply."""

    async def send_packed_command(
        self, command: list[bytes], check_health: bool = True
    ) -> None: ...

    async def read_response(self) -> object: ...


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

    async def run(self, connection: Connection, words: int, packed: bytes) -> object:
        """Run the script once, with so many words after its name, and return its reply."""
        await send(connection, words + 2, self.by_digest, packed)
        try:
            return await connection.read_response()
        except NoScriptError:
            await send(connection, words + 2, self.by_text, packed)
            return await connection.read_response()

    @functools.cached_property
    def by_digest(self) -> bytes:
        """The words that name it, where the server knows it."""
        return _words("EVALSHA", self.digest)

    @functools.cached_property
    def by_text(self) -> bytes:
        """The words that name it, with its whole text."""
        return _words("EVAL", self.text)


async def send(connection: Connection, words: int, *parts: bytes) -> None:
    """Send a command of so many words, packed already."""
    await connection.send_packed_command([b"*%d\r\n" % words, *parts], check_health=False)


def _words(*words: Any) -> bytes:
    """Words of a command as they are sent, without their count."""
    packed: bytes = pack_command(words)
    return packed[packed.index(b"\n") + 1 :]


#: A call is bounded in bytes as well, so that one script never holds the server up for long.
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024

READ: Final = Script.load("read")
COMMIT: Final = Script.load("commit")


async def read(connection: Connection, keys: Sequence[bytes]) -> list[bytes | int | None]:
    """`lua/read.lua`: the bytes of each key, `None` where absent, 0 where no string."""
    reply = await READ.run(connection, 1 + len(keys), _words(len(keys), *keys))
    if not isinstance(reply, list) or len(reply) != len(keys):
        raise ProtocolMismatch("read.lua", reply)
    return reply


async def scan(connection: Connection, *, cursor: bytes, pattern: str) -> tuple[bytes, list[bytes]]:
    """One step of SCAN over the keys that hold strings: the next cursor, and some keys."""
    words: Any = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "string")
    await send(connection, len(words), _words(*words))
    reply = await connection.read_response()
    if not isinstance(reply, list) or len(reply) != 2:
        raise ProtocolMismatch("SCAN", reply)
    return reply[0], reply[1]


class Call(NamedTuple):
    """One numbered commit, packed: it is sent again as it is, or not at all.

    group   the changes that it makes, with what is called with their outcomes
    words   how many words follow the script's name
    packed  those words: KEYS, the number and the TTLs, the layout and the bytes
    """

    group: list[Waiting[Change, Outcome]]
    words: int
    packed: bytes


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
    name: Name | None = None,
) -> Call:
    """The call `number` of the writer that has this record.

    As many changes as a call may have, `changes_max` at most, move from the left end of
    `waiting` into `group`. `name` makes of a key the one that stands in Redis behind the
    prefix, where they differ.
    """
    words, packed = pack(
        waiting,
        group,
        prefix,
        record,
        (number, record_ttl_ms, ttl_ms),
        changes_max,
        GROUP_BYTES_MAX,
        name,
    )
    return Call(group, words, packed)


def command(call: Call) -> bytes:
    """The call as one command, for a server that knows the script."""
    return _by_digest(call.words) + call.packed


@functools.lru_cache(256)
def _by_digest(words: int) -> bytes:
    """What stands before so many words of a call."""
    return b"*%d\r\n%b" % (words + 2, COMMIT.by_digest)


async def commit(connection: Connection, call: Call) -> tuple[str, list[bytes | None] | None]:
    """`lua/commit.lua`: the outcome of each change, a letter each, and for each `n` the
    bytes that the guard key holds, for each `t` the key that holds no string; `None`
    instead of those when the call had been made before, and only its record answered.
    """
    return outcomes_of(call, await COMMIT.run(connection, call.words, call.packed))


def outcomes_of(call: Call, reply: object) -> tuple[str, list[bytes | None] | None]:
    """What `commit` returns, from the reply to the call."""
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], bytes):
        raise ProtocolMismatch("commit.lua", reply)
    outcomes = reply[0].decode()
    if len(outcomes) != len(call.group):
        raise ProtocolMismatch("commit.lua", reply)
    details = len(outcomes) - outcomes.count("c")
    return outcomes, (reply[1:] if len(reply) == 1 + details else None)


class ProtocolMismatch(Exception):
    """A reply that the script cannot give: it came from something else than our script."""

    def __init__(self, script: str, reply: object) -> None:
        super().__init__(f"{script} cannot have answered {reply!r:.200}")
