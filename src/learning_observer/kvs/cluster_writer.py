"""The writer of a slot: its changes leave in groups, each at most once, wherever the slot is.

Each slot has a writer, with a record in that slot: `lua/commit.lua` finds what the call did
before wherever the slot is, because the record moves with the slot. A writer has one call in
flight, sends it again under the same number, and counts up only after a definite answer or
after giving up.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from learning_observer.kvs import scripts
from learning_observer.kvs.changes import RESERVED_PREFIX, Change, Conflict, Outcome
from learning_observer.kvs.cluster_requests import Request, Traffic
from learning_observer.kvs.cluster_slots import slot_of, tag_of
from learning_observer.kvs.errors import KVSError, WrongType
from learning_observer.kvs.key_layout import cluster_name
from learning_observer.kvs.lane import Waiting
from learning_observer.kvs.wire import Found

logger = logging.getLogger(__name__)

#: So many keys are known to go with a guard key; reducers put one, the External state.
KNOWN_MAX: Final = 4
#: The name of a key, without the prefix; many keys are used again and again.
name_of = functools.lru_cache(16_384)(cluster_name)


@functools.lru_cache(256)
def _by_digest(words: int) -> bytes:
    """What stands before so many words of a call."""
    return b"*%d\r\n%b" % (words + 2, scripts.COMMIT.by_digest)


class WriterTraffic(Traffic, Protocol):
    """What the way of a guard key needs of the traffic that it is part of."""

    def check_open(self) -> None:
        """Raises `StoreClosed` where it takes no changes more."""

    def submit(self, change: Change, done: Callable[[Outcome], object]) -> None:
        """Make a change of any keys, once it is seen whether they lie in one slot."""


class SlotWriter(Request):
    """Makes the changes of one slot in groups, each at most once."""

    __slots__ = (
        "_call",
        "_changes_max",
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
        self._waiting: deque[Waiting[Change, Outcome]] = deque()
        self._call: scripts.Call | None = None
        self.busy = False

    def takes(self, key: str) -> bool:
        """Whether `key` lies in this slot."""
        return slot_of(self._prefix + name_of(key).encode()) == self.slot

    def submit(self, change: Change, done: Callable[[Outcome], object]) -> None:
        """Take `change` into the slot's next call."""
        self._waiting.append((change, done))
        if not self.busy:
            self.busy = True
            self._traffic.begun()
            self._traffic.send(self)

    def packed(self, *, whole: bool) -> bytes:
        call = self._call
        if call is None:
            self._number += 1
            record_ttl_ms, ttl_ms = self._ttls_ms
            call = self._call = scripts.packed_call(
                self._waiting,
                [],
                prefix=self._prefix,
                record=self._record,
                number=self._number,
                record_ttl_ms=record_ttl_ms,
                ttl_ms=ttl_ms,
                changes_max=self._changes_max,
                name=name_of,
            )
        if whole:
            return b"*%d\r\n%b%b" % (call.words + 2, scripts.COMMIT.by_text, call.packed)
        return _by_digest(call.words) + call.packed

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
        if self._call is not None:
            self._finish([error] * len(self._call.group))
            return
        # It was given up before its first attempt: all that waits has waited that long.
        waiting, self._waiting = self._waiting, deque()
        self._deliver(waiting, [error] * len(waiting))
        self._go_on()

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
            self._traffic.read_name(name, self.slot, functools.partial(take, at, name))

    def _call_in_flight(self) -> scripts.Call:
        if self._call is None:
            raise RuntimeError("an answer to a call that was not sent")
        return self._call

    def _finish(self, outcomes: Sequence[Outcome]) -> None:
        group = self._call_in_flight().group
        self._call = None
        self._deliver(group, outcomes)
        self._go_on()

    def _deliver(
        self, group: Sequence[Waiting[Change, Outcome]], outcomes: Sequence[Outcome]
    ) -> None:
        for (_, done), outcome in zip(group, outcomes, strict=True):
            try:
                done(outcome)
            except Exception:
                logger.exception("a callback of a commit failed; the others go on")

    def _go_on(self) -> None:
        if self._waiting:
            self._traffic.send(self)
        else:
            self.busy = False
            self._traffic.finished()


class GuardWay:
    """The way of one guard key's changes: its writer, and the keys that are put with it.

    Whether a key lies in the writer's slot is looked up once, and not again for each change.
    """

    __slots__ = ("_known", "_traffic", "_writer")

    def __init__(self, traffic: WriterTraffic, writer: SlotWriter, guard: str) -> None:
        self._traffic = traffic
        self._writer = writer
        self._known: tuple[str, ...] = (guard,)

    def submit(self, change: Change, done: Callable[[Outcome], object]) -> None:
        """Make `change`, guarded by this key, with the slot's next call."""
        known = self._known
        for key in change.puts:
            if key not in known:
                self._traffic.submit(change, done)  # it looks at all keys
                if self._writer.takes(key) and len(known) < KNOWN_MAX:
                    self._known = (*known, key)
                return
        self._traffic.check_open()
        self._writer.submit(change, done)
