"""A commit of large values: WATCH, a look, and MULTI, where small ones go by `lua/commit.lua`.

Lua in Redis hashes every byte of each text that it is given or gives back, 1.15 ns a byte, and
a compare-and-set by a script has three such texts. Without it a commit takes two round trips,
and a server a sixth of the time: with 100 KB, 74 us instead of 437.

It is made at most once, like the others. The record is watched together with the keys, and
written with them. So of an EXEC that comes late and the one that was sent instead of it only one
is made: each watches what the other writes. And where it was the late one, the record tells.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Final

from redis.exceptions import ExecAbortError, ResponseError

from lo_kvs.kvs.batching.queue import Pending
from lo_kvs.kvs.changes import Change, Guard, Outcome
from lo_kvs.kvs.errors import OutcomeUnknown
from lo_kvs.kvs.redis.protocol import server_errors
from lo_kvs.kvs.redis.protocol.commit_script import (
    GROUP_BYTES_MAX,
    UNBOUNDED,
    Call,
    WriterSettings,
    packed_call,
)
from lo_kvs.kvs.redis.protocol.packing import Told, WaitingChanges, size_of
from lo_kvs.kvs.redis.protocol.round_trips import (
    Outcomes,
    ProtocolMismatch,
    Rounds,
    RoundTrip,
    good,
)

_END: Final = b"\r\n"
#: A writer's record, as `lua/commit.lua` writes it too: a list of JSON.
_RECORD: Final = re.compile(rb'\[(\d{1,20}),"([cnt]*)"\]')
_PLAIN: Final = frozenset({b"string", b"none"})


class Transaction:
    """One numbered commit of large changes: it is made again as it is, or not at all.

    group    what is left of the changes that it makes, as of those of a script
    refused  whether the server let this user make no transaction: then a script made it
    """

    def __init__(
        self, changes: list[Change], group: list[Told], writer: WriterSettings, number: int
    ) -> None:
        self.group = group
        self.refused = False
        self._writer, self._number = writer, number
        self._changes = changes

    def rounds(self) -> Rounds[Outcomes]:
        """The conversation; `LOKVS_STALE` where a later call has been made, and nothing is done."""
        try:
            return (yield from self._transaction())
        except ResponseError as error:
            if server_errors.code_of(error) != "NOPERM" and "unknown command" not in str(error):
                raise
        self.refused = True
        return (yield from self.by_script().rounds())

    def sizes(self) -> tuple[int, int]:
        """The bytes of its largest value, and of all values that it sends."""
        puts = [put for change in self._changes for put in {*change.puts.values()} if put]
        return max(map(len, puts), default=0), sum(map(len, puts))

    def taken_apart(self) -> WaitingChanges:
        """Its changes as they waited, for other calls. Nothing of this one may have been sent."""
        dones = (done for _, done in self.group)
        return deque(zip(self._changes, dones, strict=True))

    def by_script(self) -> Call:
        """The same call, made by the script."""
        writer = self._writer._replace(changes_max=len(self.group))
        waiting = self.taken_apart()
        return packed_call(waiting, [], writer, self._number, bytes_max=UNBOUNDED)

    def _transaction(self) -> Rounds[Outcomes]:
        names = list(dict.fromkeys(self._names()))
        looks = self._look(names)
        while True:
            _, _, found, *kinds = good((yield looks))
            record, *standing = self._found(found)
            if not all(isinstance(kind, bytes) for kind in kinds):
                raise ProtocolMismatch("TYPE", kinds)
            if record is not None:
                letters = self._letters_in(record)
                if letters is not None:
                    # A write, as in the script: what waits for replicas waits for this one.
                    good((yield RoundTrip(_packed([self._put_record(letters)]))))
                    return letters, None
            letters, details = self._listener(standing, dict(zip(names, kinds, strict=True)))
            if "c" not in letters:
                return letters, details
            commands = list(self._writes(letters))
            made = _made((yield RoundTrip(_packed(commands), len(commands))), len(commands) - 2)
            if made:
                return letters, details
            # Somebody wrote one of the keys since: what stands there now is looked at again.

    def _look(self, names: list[bytes]) -> RoundTrip:
        guards = [
            self._writer.name_of(change.guard)
            for change in self._changes
            if change.expected is not Guard.ANY
        ]
        commands: list[tuple[Any, ...]] = [
            (b"UNWATCH",),  # of a conversation before that had nothing to write
            (b"WATCH", self._writer.record, *names),
            (b"MGET", self._writer.record, *guards),
            *((b"TYPE", name) for name in names),
        ]
        return RoundTrip(_packed(commands), len(commands))

    def _found(self, found: object) -> list[bytes | None]:
        """What MGET answered: the record, and a value for each guard that is looked at."""
        guards = sum(change.expected is not Guard.ANY for change in self._changes)
        if (
            not isinstance(found, list)
            or len(found) != 1 + guards
            or not all(value is None or isinstance(value, bytes) for value in found)
        ):
            raise ProtocolMismatch("MGET", found)
        return found

    def _letters_in(self, record: bytes) -> str | None:
        """The outcomes, where the record tells those of this call."""
        fields = _RECORD.fullmatch(record)
        if fields is None:
            raise ResponseError(f"{self._writer.record.decode()} is not a writer's record")
        last, letters = int(fields[1]), fields[2].decode()
        if last > self._number:
            raise ResponseError(f"LOKVS_STALE call {self._number} comes after call {last}")
        return letters if last == self._number else None

    def _listener(
        self, standing: list[bytes | None], kinds: dict[bytes, bytes]
    ) -> tuple[str, list[bytes | None]]:
        letters: list[str] = []
        details: list[bytes | None] = []
        values = iter(standing)
        for guard, expected, puts in self._changes:
            current = expected if expected is Guard.ANY else next(values)
            guard_name, *names = map(self._writer.name_of, (guard, *puts))
            foreign = [name for name in names if kinds[name] not in _PLAIN]
            if kinds[guard_name] not in _PLAIN:
                foreign.insert(0, guard_name)
            elif current != expected:
                letters.append("n")
                details.append(current if isinstance(current, bytes) else None)
                continue
            letters.append("t" if foreign else "c")
            details += foreign[:1]
        return "".join(letters), details

    def _writes(self, letters: str) -> Iterator[tuple[Any, ...]]:
        expiry = (b"PX", self._writer.ttl_ms) if self._writer.ttl_ms else ()
        yield (b"MULTI",)
        for letter, change in zip(letters, self._changes, strict=True):
            before: tuple[bytes, bytes] | None = None
            for key, put in change.puts.items() if letter == "c" else ():
                name = self._writer.name_of(key)
                if put is None:
                    yield b"UNLINK", name
                elif before is not None and put is before[1]:
                    yield b"COPY", before[0], name, b"REPLACE"  # with its expiry
                else:
                    yield b"SET", name, put, *expiry
                    before = name, put
        yield self._put_record(letters)
        yield (b"EXEC",)

    def _put_record(self, letters: str) -> tuple[Any, ...]:
        entry = f'[{self._number},"{letters}"]'.encode()
        return b"SET", self._writer.record, entry, b"PX", self._writer.record_ttl_ms

    def _names(self) -> Iterator[bytes]:
        for guard, _, puts in self._changes:
            yield from map(self._writer.name_of, (guard, *puts))


def packed_transaction(
    waiting: deque[Pending[Change, Outcome]],
    group: list[Any],
    writer: WriterSettings,
    number: int,
    *,
    large_bytes: int,
    call_bytes: int = UNBOUNDED,
) -> Transaction:
    """Those at the left end of `waiting` that have `large_bytes` or more move into `group`.

    No two name the same key.

    call_bytes  what the server takes in one call
    """
    named: set[str] = set()
    size = 0
    while waiting and len(group) < writer.changes_max and size < GROUP_BYTES_MAX:
        change = waiting[0][0]
        keys = {change.guard, *change.puts}
        bytes_of_it = size_of(change.expected, change.puts)
        if bytes_of_it < large_bytes or not named.isdisjoint(keys):
            break
        if group and size + bytes_of_it > call_bytes:
            break
        group.append(waiting.popleft())
        named |= keys
        size += bytes_of_it
    changes = [each[0] for each in group]
    group[:] = [(each[0].guard, each[1]) for each in group]
    return Transaction(changes, group, writer, number)


def _made(replies: Any, queued: int) -> bool:
    """Whether EXEC made it all; not where a key was changed since it was watched."""
    try:
        results = good(replies)[-1]
    except ExecAbortError as error:
        # What kept the server from it came between, and stands behind redis-py's own words.
        raise ResponseError(str(error).rpartition("because of: ")[2]) from error
    if results is None:
        return False
    if not isinstance(results, list) or len(results) != queued:
        raise ProtocolMismatch("EXEC", results)
    for result in results:
        if isinstance(result, Exception):
            # A right to one of the commands was taken away since it was queued.
            raise OutcomeUnknown(f"a transaction was made in part only: {result}")
    return True


def _packed(commands: Iterable[tuple[Any, ...]]) -> bytes:
    """Commands as they are sent; a large value is copied once."""
    parts: list[bytes] = []
    for words in commands:
        parts.append(b"*%d\r\n" % len(words))
        for word in words:
            text = word if isinstance(word, bytes) else b"%d" % word
            parts += (b"$%d\r\n" % len(text), text, _END)
    return b"".join(parts)
