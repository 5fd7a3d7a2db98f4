"""Calls: groups the changes of one writer into numbered calls, by script or by transaction.

Small changes use the script, large ones a transaction. Both store the outcome of a call under its
number in the same record, so that each call is made at most once.
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
from lo_kvs.kvs.redis.protocol.packing import PackedChange
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, RawConnection

AnyCall: TypeAlias = Call | Transaction
#: A change with at least this many bytes (expected and new values together, so about twice the
#: size of a state) is large. At this size a single event takes equally long with both (measured
#: with 34 KB of state: 250 us), and the server needs half the time for a transaction.
LARGE_BYTES: Final = 64 * 1024


class Grouped(Protocol):
    """A call with a group of changes."""

    @property
    def group(self) -> list[PackedChange]:
        """The guard key and callback of each change."""


class Calls:
    """Numbers and packs the calls of one writer."""

    __slots__ = ("_large_bytes", "_limits", "_number", "_writer")

    def __init__(self, writer: WriterSettings) -> None:
        self._writer = writer
        self._large_bytes = LARGE_BYTES
        self._limits: ServerLimits | None = None
        self._number = 0

    def next(self, waiting: deque[Pending[Change, Outcome]], group: list[Any]) -> AnyCall:
        """The next call; its changes move from the left end of `waiting` into `group`."""
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
        """Whether `call` may be too large for the server, so that `check` is needed."""
        return isinstance(call, Transaction) and call.sizes()[1] >= LARGE_BYTES_MIN

    async def check(self, connection: RawConnection, place: str, call: Grouped) -> None:
        """Check the size of a call against the server's limits, which are asked for once.

        Raises `Refused`, or `Regroup` if its changes fit into several calls. In both cases
        nothing was sent.
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
        """The outcome of each change of `call`, from the call's result.

        `None` if the result has no details: some changes were not made, and the current values
        are not known. If the server refused the transaction, only scripts are used from now on.

        made    the outcome of changes that were made
        key_of  maps a name in Redis to its key
        """
        if isinstance(call, Transaction) and call.refused:
            self._large_bytes = UNBOUNDED
        letters, details = result
        if not letters.strip("c"):
            return [made] * len(letters)
        return None if details is None else outcomes_of_changes(letters, details, made, key_of)

    def lacking(self, call: Grouped, letters: str) -> list[tuple[int, bytes]]:
        """The index and the guard's name in Redis of each change that was not made."""
        return [
            (at, self._writer.name_of(call.group[at][0]))
            for at, letter in enumerate(letters)
            if letter != "c"
        ]


def outcomes_of_changes(
    letters: str,
    details: Sequence[bytes | None],
    made: KVSError | None,
    key_of: Callable[[bytes], str],
) -> list[Outcome]:
    """The outcome of each change of a call.

    details  one for each change that was not made
    made     the outcome of changes that were made
    key_of   maps a name in Redis to its key
    """
    detail = iter(details)
    return [
        made if letter == "c" else outcome_of(letter, next(detail), key_of) for letter in letters
    ]


def outcome_of(letter: str, detail: bytes | None, key_of: Callable[[bytes], str]) -> Outcome:
    """The outcome of a change that was not made."""
    return Conflict(detail) if letter == "n" else WrongType(key_of(detail or b""))
