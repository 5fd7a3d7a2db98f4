"""SlotWriter: writes the changes of one slot in groups, each at most once.

Each slot has a writer with a record in that slot, so the record moves with the slot and the
outcome of an earlier attempt can be found on any node. A writer has one call in flight, retries
it with the same number, and increments the number only after a definite answer or after giving up.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from lo_kvs.kvs.batching.inbox import resolve_all
from lo_kvs.kvs.batching.queue import Pending, PendingQueue
from lo_kvs.kvs.changes import RESERVED_PREFIX, Change, Outcome
from lo_kvs.kvs.errors import KVSError
from lo_kvs.kvs.redis.cluster.requests import Request, RequestSender
from lo_kvs.kvs.redis.cluster.slots import slot_of, tag_of
from lo_kvs.kvs.redis.key_names import cluster_name
from lo_kvs.kvs.redis.protocol.commit_script import WriterSettings, outcomes_of
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction
from lo_kvs.kvs.redis.protocol.commits import AnyCall, Calls, outcome_of
from lo_kvs.kvs.redis.protocol.limits import BREAKS_MAX
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, RawConnection, Rounds
from lo_kvs.kvs.redis.server.connection import ATTEMPT_MIN_S, PAUSE_MIN_S, Lookup

#: The name of a key, without the prefix; cached, because many keys are used repeatedly.
name_of = functools.lru_cache(16_384)(cluster_name)


class SlotWriter(Request):
    """Makes the changes of one slot in groups, each at most once."""

    __slots__ = (
        "_call",
        "_calls",
        "_client",
        "_leading",
        "_waiting",
        "_writer",
        "busy",
    )

    writes = True

    def __init__(
        self,
        client: RequestSender,
        slot: int,
        writer: str,
        *,
        prefix: bytes,
        ttls_ms: tuple[int, int],
        changes_max: int,
    ) -> None:
        super().__init__(slot)
        self._client = client
        record = f"{RESERVED_PREFIX}writer:{writer}:{{{tag_of(slot)}}}".encode()
        record_ttl_ms, ttl_ms = ttls_ms
        self._writer = WriterSettings(record, prefix, ttl_ms, record_ttl_ms, changes_max, name_of)
        self._calls = Calls(self._writer)
        self._waiting: PendingQueue[Change, Outcome] = PendingQueue(client.retry_floor)
        self._leading = 0  # the changes for which the request was sent, until they are in a call
        self._call: AnyCall | None = None
        self.busy = False

    def takes(self, key: str) -> bool:
        """Whether `key` is in this slot."""
        return slot_of(self._writer.name_of(key)) == self.slot

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        """Put `change` into the slot's next call."""
        if deadline is None:
            self._waiting.append((change, done))
        else:
            self._waiting.add_timed(change, done, deadline)
        if not self.busy:
            self.busy = True
            self._leading = 1
            self._client.begun()
            self._client.send(self, deadline)

    def packed(self, *, whole: bool) -> bytes | None:
        call = self._call
        if call is None:
            call = self._call = self._next_call()
        if isinstance(call, Transaction):
            if self.ask_at is None:
                return None
            call = call.by_script()  # ASKING applies to one command only
        return call.by_text() if whole else call.by_digest()

    def rounds(self) -> Rounds[Outcomes]:
        return self._call_in_flight().rounds()

    async def check(self, connection: RawConnection, place: str) -> None:
        await self._calls.check(connection, place, self._call_in_flight())

    def regroup(self) -> None:
        call, self._call = self._call, None
        if isinstance(call, Transaction):
            self._waiting.extendleft(reversed(call.taken_apart()))
        self._send_waiting()

    @property
    def breaks_max(self) -> int | None:
        call = self._call
        return BREAKS_MAX if call is not None and self._calls.is_unchecked(call) else None

    def answered(self, reply: object, shortfall: KVSError | None = None) -> None:
        call = self._call_in_flight()
        # A tuple is the result of several round trips.
        result = reply if isinstance(reply, tuple) else outcomes_of(call.group, reply)
        outcomes = self._calls.outcomes(call, result, shortfall, self._key_of)
        if outcomes is None:
            self._read_current(call, result[0], shortfall)
        else:
            self._finish(outcomes)

    def failed(self, error: KVSError) -> None:
        call, self._call = self._call, None
        late: list[Any] = []
        now = asyncio.get_running_loop().time()
        if call is not None:
            self._resolve(call.group, error)
        if self.deadline <= now + ATTEMPT_MIN_S + PAUSE_MIN_S:  # it was given up
            self._set_deadlines(now, leading=0 if call is not None else self._leading)
            late = self._waiting.overdue(max(now, self.deadline))
        elif call is None:  # the other changes would fail in the same way
            late, self._waiting = list(self._waiting), PendingQueue(self._client.retry_floor)
        if late:
            self._resolve(late, error if call is None else self._client.unsent(self))
        self._send_waiting()

    def abandoned(self, place: str, error: BaseException) -> None:
        call, self._call = self._call, None
        waiting, self._waiting = list(self._waiting), PendingQueue(self._client.retry_floor)
        if call is not None:
            self._resolve(call.group, self.dropped(place, error))
        self.maybe_applied = False  # the queued changes were not sent
        self._resolve(waiting, self.dropped(place, error))
        self._send_waiting()

    def check_overdue(self, now: float) -> None:
        """Set deadlines for queued changes, and fail those whose deadline has passed.

        Called 20 times a second while a request takes long.
        """
        leading = 0 if self._call is not None else self._leading
        if len(self._waiting) > leading:
            self._set_deadlines(now, leading=leading)
            # While the nodes answer, changes wait only because the nodes are busy.
            if now - self.since < self._waiting.retry_floor.seconds:
                return
            late = self._waiting.overdue(now, but_first=leading)
            if late:
                self._resolve(late, self._client.unsent(self))

    def _resolve(self, group: list[Any], outcome: Outcome) -> None:
        resolve_all(group, [outcome] * len(group))

    def _set_deadlines(self, now: float, *, leading: int) -> None:
        """Set deadlines: from now, or for the leading changes from when the request was sent."""
        until = now + self._client.try_for_s
        self._waiting.set_deadlines(until, first=leading, of_first=self.deadline)

    def _pop_group(self) -> tuple[deque[Pending[Change, Outcome]], float]:
        """Remove the first changes with similar deadlines; also return the soonest deadline."""
        now = asyncio.get_running_loop().time()
        return self._waiting.pop_group(now, self._client.try_for_s, self._writer.changes_max)

    def _next_call(self) -> AnyCall:
        if not self._waiting.timed:
            return self._calls.next(self._waiting, [])
        source, _ = self._pop_group()
        try:
            return self._calls.next(source, [])
        finally:
            self._waiting.put_back(source)

    def _key_of(self, name: bytes) -> str:
        return self._client.key_of(name) or repr(name)

    def _read_current(self, call: AnyCall, letters: str, shortfall: KVSError | None) -> None:
        """The call had been made before: read the current values for its conflicts."""
        found: list[Outcome] = [shortfall] * len(letters)
        lacking = self._calls.lacking(call, letters)
        left = len(lacking)

        def take(at: int, name: bytes, data: Lookup) -> None:
            nonlocal left
            if isinstance(data, KVSError):
                found[at] = data
            else:
                # If a guard has another type by now, the caller's next attempt reports that.
                letter = letters[at]
                found[at] = outcome_of(letter, name if letter == "t" else data, self._key_of)
            left -= 1
            if not left:
                self._finish(found)

        for at, name in lacking:
            done = functools.partial(take, at, name)
            self._client.read_name(name, self.slot, done, self.deadline)

    def _call_in_flight(self) -> AnyCall:
        if self._call is None:
            raise RuntimeError("an answer to a call that was not sent")
        return self._call

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        group = self._call_in_flight().group
        self._call = None
        if self._waiting.timed and not self.attempts:
            self._waiting.clear_deadlines()  # the node answers
        try:
            resolve_all(group, outcomes)
        finally:  # a callback may have raised KeyboardInterrupt
            self._send_waiting()

    def _send_waiting(self) -> None:
        if not self._waiting:
            self.busy = False
            self._client.finished()
            return
        deadline = None
        self._leading = len(self._waiting)
        if self._waiting.timed:
            leading, deadline = self._pop_group()
            self._leading = len(leading)
            self._waiting.put_back(leading)
        self._client.send(self, deadline)
