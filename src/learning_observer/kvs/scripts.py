"""One typed coroutine for each file in `lua/`.

A script is sent as its digest (EVALSHA); a server that does not know it yet answers
NOSCRIPT, has done nothing, and gets the whole text (EVAL).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Final, NamedTuple, Protocol

from redis.exceptions import NoScriptError
from redis.typing import EncodableT

from learning_observer.kvs.store import Change, Guard


class Connection(Protocol):
    """What is needed of a redis-py connection: one command, one reply."""

    def pack_command(self, *args: EncodableT) -> list[bytes]: ...

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

    async def run(self, connection: Connection, keys: Sequence[bytes], *args: EncodableT) -> object:
        """Run the script once and return its reply."""
        rest = (len(keys), *keys, *args)
        command = connection.pack_command("EVALSHA", self.digest, *rest)
        await connection.send_packed_command(command, check_health=False)
        try:
            return await connection.read_response()
        except NoScriptError:
            command = connection.pack_command("EVAL", self.text, *rest)
            await connection.send_packed_command(command, check_health=False)
            return await connection.read_response()


READ: Final = Script.load("read")
COMMIT: Final = Script.load("commit")


async def read(connection: Connection, keys: Sequence[bytes]) -> list[bytes | int | None]:
    """`lua/read.lua`: the bytes of each key, `None` where absent, 0 where no string."""
    reply = await READ.run(connection, keys)
    if not isinstance(reply, list) or len(reply) != len(keys):
        raise ProtocolMismatch("read.lua", reply)
    return reply


class Call(NamedTuple):
    """One numbered commit, packed: it is sent again as it is, or not at all.

    record  the key of the writer's record      keys    KEYS[2…]
    number  of the call                         layout  ARGV[4]; one part for each change
    data    ARGV[5…]
    """

    record: bytes
    number: int
    keys: list[bytes]
    layout: str
    data: list[bytes]


def pack(record: bytes, number: int, changes: Sequence[Change], prefix: str) -> Call:
    """The call that makes `changes`; each key stands under `prefix` in Redis."""
    keys: list[bytes] = []
    layout: list[str] = []
    data: list[bytes] = []
    for guard, expected, puts in changes:
        keys.append((prefix + guard).encode())
        if expected is None:
            letters = "n"
        elif isinstance(expected, Guard):
            letters = "a"
        else:
            letters = "v"
            data.append(expected)
        before: bytes | None = None
        # The guard's own put comes first, so that no key is sent twice.
        for key in sorted(puts, key=guard.__ne__):
            put = puts[key]
            if key != guard:
                keys.append((prefix + key).encode())
            if put is None:
                letters += "X" if key == guard else "x"
            elif put is before:
                letters += "r"
            else:
                letters += "S" if key == guard else "s"
                data.append(put)
                before = put
        layout.append(letters + ".")
    return Call(record, number, keys, "".join(layout), data)


async def commit(
    connection: Connection, call: Call, *, record_ttl_ms: int, ttl_ms: int
) -> tuple[str, list[bytes | None] | None]:
    """`lua/commit.lua`: the outcome of each change, a letter each, and for each `n` the
    bytes that the guard key holds; `None` instead of those when the call had been made
    before, and only its record answered.
    """
    reply = await COMMIT.run(
        connection,
        [call.record, *call.keys],
        call.number,
        record_ttl_ms,
        ttl_ms,
        call.layout,
        *call.data,
    )
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], bytes):
        raise ProtocolMismatch("commit.lua", reply)
    outcomes = reply[0].decode()
    if len(outcomes) != call.layout.count("."):
        raise ProtocolMismatch("commit.lua", reply)
    conflicts = outcomes.count("n")
    return outcomes, (reply[1:] if len(reply) == 1 + conflicts else None)


class ProtocolMismatch(Exception):
    """A reply that the script cannot give: it came from something else than our script."""

    def __init__(self, script: str, reply: object) -> None:
        super().__init__(f"{script} cannot have answered {reply!r:.200}")
