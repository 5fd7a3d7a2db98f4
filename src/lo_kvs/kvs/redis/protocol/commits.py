"""The numbered calls of one writer: which changes leave together, and by which way.

Small changes go by the script, large ones by a transaction. Both keep what the call did under
the same number in the same record, so that a call is made at most once either way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from lo_kvs.kvs.batching.queue import Pending
from lo_kvs.kvs.changes import Change, Conflict, Outcome
from lo_kvs.kvs.errors import KVSError, WrongType
from lo_kvs.kvs.redis.protocol.commit_script import (
    UNBOUNDED,
    Call,
    WriterSettings,
    packed_call,
)
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction, packed_transaction
from lo_kvs.kvs.redis.protocol.limits import LARGE_BYTES_MIN, ServerLimits, ask_limits
from lo_kvs.kvs.redis.protocol.packing import Told
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, RawConnection

AnyCall: TypeAlias = Call | Transaction
#: From so many bytes on, those expected and those put together, a change is large: the bytes of
#: a state before and after, so about twice its size. There a lone event takes as long by either
#: way (measured with 34 KB of state: 250 us), and the server half as long by a transaction.
LARGE_BYTES: Final = 64 * 1024


class Grouped(Protocol):
    """What has a group of changes."""

    @property
    def group(self) -> list[Told]:
        """What is left of them."""


class Calls:
    """Numbers and packs the calls of one writer."""

    __slots__ = ("_large_bytes", "_limits", "_number", "_writer")

    def __init__(self, writer: WriterSettings) -> None:
        self._writer = writer
        self._large_bytes = LARGE_BYTES
        self._limits: ServerLimits | None = None
        self._number = 0

    def next(self, waiting: deque[Pending[Change, Outcome]], group: list[Any]) -> AnyCall:
        """The next call, of what moves from the left end of `waiting` into `group`."""
        self._number += 1
        number, large = self._number, self._large_bytes
        call = packed_call(waiting, group, self._writer, number, large_bytes=large)
        if group:
            return call
        most = UNBOUNDED if self._limits is None else self._limits.call_bytes
        return packed_transaction(
            waiting, group, self._writer, number, large_bytes=large, call_bytes=most
        )

    def is_unchecked(self, call: Grouped) -> bool:
        """Whether `call` may be too large for the server, as far as is known: see `check`."""
        return isinstance(call, Transaction) and call.sizes()[1] >= LARGE_BYTES_MIN

    async def check(self, connection: RawConnection, place: str, call: Grouped) -> None:
        """Ask the server whether it takes a call of this size, where that is not known yet.

        Raises `Refused`, or `Regroup` where the changes of the call can be made in several.
        Nothing of the call has been sent then.
        """
        if isinstance(call, Transaction) and self.is_unchecked(call):
            if self._limits is None:
                self._limits = await ask_limits(connection)
            self._limits.check(place, call)

    def outcomes(
        self,
        call: Grouped,
        result: Outcomes,
        made: KVSError | None,
        key_of: Callable[[bytes], str],
    ) -> Sequence[Outcome] | None:
        """What each change of `call`, which has this result, is told; `made` those that were made.

        `None` where the result does not tell all: some were not made, and what they met is not
        known. Where the server took it as no transaction, no other is tried from now on.

        key_of  the key that has a name in Redis
        """
        if isinstance(call, Transaction) and call.refused:
            self._large_bytes = UNBOUNDED
        letters, details = result
        if not letters.strip("c"):
            return [made] * len(letters)
        return None if details is None else told(letters, details, made, key_of)

    def lacking(self, call: Grouped, letters: str) -> list[tuple[int, bytes]]:
        """Of each change that was not made: which it is, and the name of its guard in Redis."""
        return [
            (at, self._writer.name_of(call.group[at][0]))
            for at, letter in enumerate(letters)
            if letter != "c"
        ]


def told(
    letters: str,
    details: Sequence[bytes | None],
    made: KVSError | None,
    key_of: Callable[[bytes], str],
) -> list[Outcome]:
    """What each change of a call is told; `made` those that were made.

    details  one for each change that was not made
    key_of   the key that has a name in Redis
    """
    detail = iter(details)
    return [
        made if letter == "c" else outcome_of(letter, next(detail), key_of) for letter in letters
    ]


def outcome_of(letter: str, detail: bytes | None, key_of: Callable[[bytes], str]) -> Outcome:
    """What a change that was not made is told."""
    return Conflict(detail) if letter == "n" else WrongType(key_of(detail or b""))
