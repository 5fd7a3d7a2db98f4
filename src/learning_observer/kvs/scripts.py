"""One typed coroutine for each file in `lua/`.

A script is sent as its digest (EVALSHA); a server that does not know it yet answers
NOSCRIPT, has done nothing, and gets the whole text (EVAL).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol

from hiredis import pack_command
from redis.exceptions import NoScriptError

from learning_observer.kvs.changes import Change, Outcome
from learning_observer.kvs.lane import Waiting


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

    async def run(
        self, connection: Connection, keys: Sequence[bytes], *args: bytes | int | str
    ) -> object:
        """Run the script once and return its reply."""
        # hiredis packs in C what redis-py would pack in Python, a tenth of a commit's cost.
        rest: Any = (len(keys), *keys, *args)  # hiredis's stub takes tuples of one item only
        command = pack_command(("EVALSHA", self.digest, *rest))
        await connection.send_packed_command([command], check_health=False)
        try:
            return await connection.read_response()
        except NoScriptError:
            command = pack_command(("EVAL", self.text, *rest))
            await connection.send_packed_command([command], check_health=False)
            return await connection.read_response()


#: A call is bounded, so that one script never holds the server up for long.
GROUP_CHANGES_MAX: Final = 500
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024

READ: Final = Script.load("read")
COMMIT: Final = Script.load("commit")


async def read(connection: Connection, keys: Sequence[bytes]) -> list[bytes | int | None]:
    """`lua/read.lua`: the bytes of each key, `None` where absent, 0 where no string."""
    reply = await READ.run(connection, keys)
    if not isinstance(reply, list) or len(reply) != len(keys):
        raise ProtocolMismatch("read.lua", reply)
    return reply


async def scan(connection: Connection, *, cursor: bytes, pattern: str) -> tuple[bytes, list[bytes]]:
    """One step of SCAN over the keys that hold strings: the next cursor, and some keys."""
    words: Any = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "string")
    await connection.send_packed_command([pack_command(words)], check_health=False)
    reply = await connection.read_response()
    if not isinstance(reply, list) or len(reply) != 2:
        raise ProtocolMismatch("SCAN", reply)
    return reply[0], reply[1]


class Call(NamedTuple):
    """One numbered commit, packed: it is sent again as it is, or not at all.

    group  the changes that it makes, with what is called with their outcomes
    keys   KEYS: the writer's record, then those of the changes
    args   ARGV: number, record_ttl_ms, ttl_ms, then the layout and the bytes
    """

    group: list[Waiting[Change, Outcome]]
    keys: list[bytes]
    args: list[bytes | int | str]

    @classmethod
    def numbered(cls, record: bytes, number: int, *, record_ttl_ms: int, ttl_ms: int) -> Call:
        """The call `number` of the writer that has this record, still without changes."""
        return cls([], [record], [number, record_ttl_ms, ttl_ms])

    def fill(self, waiting: deque[Waiting[Change, Outcome]], *, prefix: str) -> None:
        """Take from the left end of `waiting` as many changes as a call may have.

        No two of them name the same key: the script looks at all keys before it writes any.
        """
        group, keys, args = self
        named: set[str] = set()
        layout: list[str] = []
        args.append("")
        size = 0
        while waiting and len(group) < GROUP_CHANGES_MAX and size < GROUP_BYTES_MAX:
            guard, expected, puts = waiting[0][0]
            if guard in named or not named.isdisjoint(puts):
                break
            group.append(waiting.popleft())
            named.add(guard)
            named.update(puts)
            keys.append((prefix + guard).encode())
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
                    keys.append((prefix + key).encode())
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
        args[3] = "".join(layout)


async def commit(connection: Connection, call: Call) -> tuple[str, list[bytes | None] | None]:
    """`lua/commit.lua`: the outcome of each change, a letter each, and for each `n` the
    bytes that the guard key holds, for each `t` the key that holds no string; `None`
    instead of those when the call had been made before, and only its record answered.
    """
    return outcomes_of(call, await COMMIT.run(connection, call.keys, *call.args))


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
