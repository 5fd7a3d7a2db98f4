"""The writer of a slot: its changes leave in groups, each at most once, wherever the slot is.

Each slot has a writer, with a record in that slot: `lua/commit.lua` finds what the call did
before wherever the slot is, because the record moves with the slot. A writer has one call in
flight, sends it again under the same number, and counts up only after a definite answer or
after giving up.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Sequence

from learning_observer.kvs import scripts
from learning_observer.kvs.changes import RESERVED_PREFIX, Change, Conflict, Outcome
from learning_observer.kvs.cluster_requests import Request, Traffic
from learning_observer.kvs.cluster_slots import slot_of, tag_of
from learning_observer.kvs.errors import KVSError, WrongType
from learning_observer.kvs.intake import deliver
from learning_observer.kvs.key_layout import cluster_name
from learning_observer.kvs.waiting import Queue, Waiting
from learning_observer.kvs.wire import ATTEMPT_MIN_S, PAUSE_MIN_S, Found

#: The name of a key, without the prefix; many keys are used again and again.
name_of = functools.lru_cache(16_384)(cluster_name)


class SlotWriter(Request):
    """Makes the changes of one slot in groups, each at most once."""

    __slots__ = (
        "_call",
        "_changes_max",
        "_leading",
        "_number",
        "_prefix",
        "_record",
        "_traffic",
        "_ttls_ms",
        "_waiting",
        "busy",
    )

    writes = True

    def __init__(
        self,
        traffic: Traffic,
        slot: int,
        writer: str,
        *,
        prefix: bytes,
        ttls_ms: tuple[int, int],
        changes_max: int,
    ) -> None:
        super().__init__(slot)
        self._changes_max = changes_max
        self._prefix = prefix
        self._traffic = traffic
        self._record = f"{RESERVED_PREFIX}writer:{writer}:{{{tag_of(slot)}}}".encode()
        self._ttls_ms = ttls_ms
        self._number = 0
        self._waiting: Queue[Change, Outcome] = Queue()
        self._leading = 0  # those that the request was sent for, until they are in a call
        self._call: scripts.Call | None = None
        self.busy = False

    def takes(self, key: str) -> bool:
        """Whether `key` lies in this slot."""
        return slot_of(self._prefix + name_of(key).encode()) == self.slot

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        """Take `change` into the slot's next call."""
        if deadline is None:
            self._waiting.append((change, done))
        else:
            self._waiting.add_timed(change, done, deadline)
        if not self.busy:
            self.busy = True
            self._leading = 1
            self._traffic.begun()
            self._traffic.send(self, deadline)

    def packed(self, *, whole: bool) -> bytes:
        call = self._call
        if call is None:
            self._number += 1
            record_ttl_ms, ttl_ms = self._ttls_ms
            source: deque[Waiting[Change, Outcome]] = self._waiting
            if self._waiting.timed:
                source, _ = self._take()
            try:
                call = self._call = scripts.packed_call(
                    source,
                    [],
                    prefix=self._prefix,
                    record=self._record,
                    number=self._number,
                    record_ttl_ms=record_ttl_ms,
                    ttl_ms=ttl_ms,
                    changes_max=self._changes_max,
                    name=name_of,
                )
            finally:
                if source is not self._waiting:
                    self._waiting.put_back(source)
        return call.by_text() if whole else call.by_digest()

    def answered(self, reply: object, shortfall: KVSError | None = None) -> None:
        call = self._call_in_flight()
        outcomes, details = scripts.outcomes_of(call, reply)
        if not outcomes.strip("c"):
            self._finish([shortfall] * len(call.group))
        elif details is None:
            self._read_afresh(call, outcomes, shortfall)
        else:
            detail = iter(details)
            self._finish(
                [
                    shortfall if letter == "c" else self._not_made(letter, next(detail))
                    for letter in outcomes
                ]
            )

    def failed(self, error: KVSError) -> None:
        call, self._call = self._call, None
        late: Sequence[Waiting[Change, Outcome]] = ()
        now = asyncio.get_running_loop().time()
        if call is not None:
            self._tell(call.group, error)
        if self.deadline <= now + ATTEMPT_MIN_S + PAUSE_MIN_S:  # it was given up
            self._note(now, leading=0 if call is not None else self._leading)
            late = self._waiting.overdue(max(now, self.deadline))
        elif call is None:  # whatever it was, it would befall the others as well
            late, self._waiting = self._waiting, Queue()
        if late:
            self._tell(late, error if call is None else self._traffic.unsent(self))
        self._go_on()

    def look(self, now: float) -> None:
        """Note until when those who wait are tried, and tell those whose time is up.

        Called twenty times a second while anything takes long, and not otherwise.
        """
        leading = 0 if self._call is not None else self._leading
        if len(self._waiting) > leading:
            self._note(now, leading=leading)
            late = self._waiting.overdue(now, but_first=leading)
            if late:
                self._tell(late, self._traffic.unsent(self))

    def _tell(self, group: Sequence[Waiting[Change, Outcome]], outcome: Outcome) -> None:
        deliver(group, [outcome] * len(group))

    def _note(self, now: float, *, leading: int) -> None:
        """Those who wait have come by now; the leading ones came when the request was sent."""
        until = now + self._traffic.try_for_s
        self._waiting.note(until, first=leading, of_first=self.deadline)

    def _take(self) -> tuple[deque[Waiting[Change, Outcome]], float]:
        """Take out those whose deadlines agree with the first one's; and the soonest of these."""
        now = asyncio.get_running_loop().time()
        return self._waiting.take(now, self._traffic.try_for_s, self._changes_max)

    def _not_made(self, letter: str, detail: bytes | None) -> Outcome:
        if letter == "n":
            return Conflict(detail)
        return WrongType(self._traffic.key_of(detail or b"") or repr(detail))

    def _read_afresh(self, call: scripts.Call, outcomes: str, shortfall: KVSError | None) -> None:
        """The call had been made before: what its conflicts met can only be read now."""
        found: list[Outcome] = [shortfall] * len(outcomes)
        lacking = [at for at, letter in enumerate(outcomes) if letter != "c"]
        left = len(lacking)

        def take(at: int, name: bytes, data: Found) -> None:
            nonlocal left
            if isinstance(data, KVSError):
                found[at] = data
            else:
                # A guard that has become something else by now is told by the retry that follows.
                found[at] = self._not_made(outcomes[at], name if outcomes[at] == "t" else data)
            left -= 1
            if not left:
                self._finish(found)

        for at in lacking:
            name = self._prefix + name_of(call.group[at][0].guard).encode()
            done = functools.partial(take, at, name)
            self._traffic.read_name(name, self.slot, done, self.deadline)

    def _call_in_flight(self) -> scripts.Call:
        if self._call is None:
            raise RuntimeError("an answer to a call that was not sent")
        return self._call

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        group = self._call_in_flight().group
        self._call = None
        if self._waiting.timed and not self.attempts:
            self._waiting.forget()  # the node answers
        deliver(group, outcomes)
        self._go_on()

    def _go_on(self) -> None:
        if not self._waiting:
            self.busy = False
            self._traffic.finished()
            return
        deadline = None
        self._leading = len(self._waiting)
        if self._waiting.timed:
            leading, deadline = self._take()
            self._leading = len(leading)
            self._waiting.put_back(leading)
        self._traffic.send(self, deadline)
