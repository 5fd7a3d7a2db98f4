"""The numbered calls of one writer: which changes leave together, in which way, and what of it.

Small changes go by the script, large ones by a transaction. Both keep what the call did under
the same number in the same record, so that a call is made at most once either way.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Sequence
from typing import Final, TypeAlias

from learning_observer.kvs.changes import RESERVED_PREFIX, Change, Conflict, Outcome
from learning_observer.kvs.errors import NotReplicated, WrongType
from learning_observer.kvs.scripts import UNBOUNDED, Call, packed_call
from learning_observer.kvs.transactions import Transaction, packed_transaction
from learning_observer.kvs.waiting import Waiting

AnyCall: TypeAlias = Call | Transaction
#: From so many bytes on, those expected and those put together, a change is large: the bytes of
#: a state before and after, so about twice its size. There a lone event takes as long by either
#: way (measured with 34 KB of state: 250 us), and the server half as long by a transaction.
LARGE_BYTES: Final = 64 * 1024


class Calls:
    """Numbers and packs the calls of one writer, under an id that no process used before."""

    def __init__(self, *, prefix: str, ttl_ms: int, record_ttl_ms: int, changes_max: int) -> None:
        self._prefix = prefix.encode()
        self._record = f"{RESERVED_PREFIX}writer:{uuid.uuid4().hex}".encode()
        self._ttl_ms, self._record_ttl_ms = ttl_ms, record_ttl_ms
        self._changes_max = changes_max
        self._large_bytes = LARGE_BYTES
        self._number = 0

    def next(
        self, waiting: deque[Waiting[Change, Outcome]], group: list[Waiting[Change, Outcome]]
    ) -> AnyCall:
        """The next call, of what moves from the left end of `waiting` into `group`."""
        self._number += 1
        call = packed_call(
            waiting,
            group,
            prefix=self._prefix,
            record=self._record,
            number=self._number,
            record_ttl_ms=self._record_ttl_ms,
            ttl_ms=self._ttl_ms,
            changes_max=self._changes_max,
            large_bytes=self._large_bytes,
        )
        if group:
            return call
        return packed_transaction(
            waiting,
            group,
            prefix=self._prefix,
            record=self._record,
            number=self._number,
            record_ttl_ms=self._record_ttl_ms,
            ttl_ms=self._ttl_ms,
            changes_max=self._changes_max,
            large_bytes=self._large_bytes,
        )

    def answered(self, call: AnyCall) -> None:
        """It has been made. Where the server takes no transaction, no other is tried."""
        if isinstance(call, Transaction) and call.refused:
            self._large_bytes = UNBOUNDED

    def outcomes(
        self, letters: str, details: Sequence[bytes | None], made: NotReplicated | None = None
    ) -> list[Outcome]:
        """What is told of each change; `made` of those that were made."""
        detail = iter(details)
        return [
            made if letter == "c" else self._not_made(letter, next(detail)) for letter in letters
        ]

    def lacking(self, call: AnyCall, letters: str) -> list[tuple[str, bytes]]:
        """The letter of each change that was not made, and the name of its guard in Redis."""
        return [
            (letter, self._prefix + each[0].guard.encode())
            for letter, each in zip(letters, call.group, strict=True)
            if letter != "c"
        ]

    def _not_made(self, letter: str, detail: bytes | None) -> Outcome:
        if letter == "n":
            return Conflict(detail)
        return WrongType((detail or b"").removeprefix(self._prefix).decode())
