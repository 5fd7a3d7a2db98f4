"""The events that wait for one state: who waits for each, and until when."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from lo_kvs.kvs.batching.deadlines import agree
from lo_kvs.kvs.codec import Json
from lo_kvs.kvs.errors import TimedOut, Unavailable, shorten
from lo_kvs.stream_analytics.engine.batch import BatchShare
from lo_kvs.stream_analytics.engine.cache import Cached
from lo_kvs.stream_analytics.engine.deadlines import EventDeadlines
from lo_kvs.stream_analytics.engine.fold import Event, StateKeys
from lo_kvs.stream_analytics.engine.wakeups import Failed, Wakeups

#: Events folded into one commit at most, so that the first of them is answered soon; of a
#: batch, whose events are answered together, so that the event loop turns now and then.
FOLD_EVENTS_MAX: Final = 256
FOLD_OF_BATCH_MAX: Final = 1024
#: A state with so many events looks for those whose callers were cancelled; with twice as many as
#: were left then, again.
SWEEP_EVENTS: Final = 1024


class EngineBase:
    """What a state and its events need of the engine that keeps them.

    clock    tells when events come, and until when they are tried
    wakeups  wakes those who wait
    reducer_timeout  seconds that a reducer may take for one event, if it has no limit of its own
    """

    __slots__ = ("clock", "reducer_timeout", "wakeups")

    def __init__(
        self, clock: EventDeadlines, wakeups: Wakeups, reducer_timeout: float | None
    ) -> None:
        self.clock = clock
        self.wakeups = wakeups
        self.reducer_timeout = reducer_timeout

    def answered(self, before: int, after: int) -> None:
        """A state had so many events that wait, and has so many now."""
        raise NotImplementedError

    def became_idle(self, slot: Any) -> None:
        """No event waits for the state any more."""
        raise NotImplementedError

    def spawn(
        self, work: Coroutine[Any, Any, None], lost: Callable[[BaseException], object]
    ) -> None:
        """Run `work` in a task. Where that ends before its work is done, call `lost(error)`."""
        raise NotImplementedError

    def end_process(self, error: BaseException) -> None:
        """Raise `error`, which a reducer raised to end the process, out of the event loop."""
        raise NotImplementedError


class EventQueue(Cached):
    """The events of one state, in their order.

    waiting  the events, each followed by who waits for its answer, by the answer once there is
             one, and by when it came: a list for each would be a lot to look after
    folded   so many of them, the first ones, have their answer
    stop     where those end, in `waiting`, that a task is folding
    keeper   the engine that holds the state
    keys     the keys of the state
    """

    __slots__ = ("_sweep_at", "engine", "folded", "keys", "stop", "waiting")

    def __init__(self, engine: EngineBase, keys: StateKeys) -> None:
        super().__init__(sys.getsizeof(keys[0]) + sys.getsizeof(keys[1]))
        self.engine = engine
        self.keys = keys
        self.waiting: list[Any] = []
        self.folded = 0
        self.stop = 0
        self._sweep_at = 4 * SWEEP_EVENTS

    def add(self, event: Event, caller: asyncio.Future[Json] | BatchShare) -> None:
        """One event more waits, and `caller` for its answer."""
        waiting = self.waiting
        waiting.append(event)
        waiting.append(caller)
        waiting.append(None)
        waiting.append(self.engine.clock.now)
        if len(waiting) > self._sweep_at:
            self.sweep()

    def end(self) -> int:
        """Where those end, in `waiting`, that are folded now."""
        waiting = self.waiting
        most = FOLD_OF_BATCH_MAX if type(waiting[1]) is BatchShare else FOLD_EVENTS_MAX
        end = 4 * min(len(waiting) // 4, most)
        came = waiting[3]
        first = (
            None if self.engine.clock.unavailable_since < came else self.engine.clock.deadline(came)
        )
        if first is not None:  # what is written together has one deadline
            for at in range(7, end, 4):
                if not agree(first, first + waiting[at] - came, self.engine.clock.now):
                    return at - 3
        return end

    def fail_expired(self) -> bool:
        """Answer those whose time is up, in their order. Returns whether any event is left."""
        waiting = self.waiting
        self.folded = 0
        for at in range(0, len(waiting), 4):
            until = self.engine.clock.deadline(waiting[at + 3])
            if until is None or until > self.engine.clock.now:
                break
            waiting[at + 2] = Failed(_too_late(self.keys.internal))
            self.folded += 1
        self.answer()
        return bool(self.waiting)

    def sweep(self) -> None:
        """Drop the events that were not begun, and whose callers were cancelled.

        The first event stays: the state's turn is about it. `waiting` stays the same list, as a
        task may be folding it.
        """
        waiting = self.waiting
        before = len(waiting)
        left: list[Any] = []
        begun = 4 * (self.folded + 1)
        stop = self.stop
        for at in range(begun, before, 4):
            caller = waiting[at + 1]
            gone = caller.batch.is_abandoned() if type(caller) is BatchShare else caller.cancelled()
            if not gone:
                left += waiting[at : at + 4]
            elif at < stop:
                self.stop -= 4
        waiting[begun:] = left
        self._sweep_at = max(4 * SWEEP_EVENTS, 2 * len(waiting))
        self.engine.answered(before // 4, len(waiting) // 4)

    def renew(self) -> None:
        """The events have all their time again: what held them up is no trouble of the store."""
        now = self.engine.clock.attempt()[0]
        self.waiting[3::4] = [now] * (len(self.waiting) // 4)

    def fail_folded(self, error: BaseException) -> None:
        """The write of those that were folded failed; errors of their own stay."""
        for at in range(2, 4 * self.folded, 4):
            if type(self.waiting[at]) is not Failed:
                self.waiting[at] = Failed(error)

    def fail_all(self, error: BaseException) -> None:
        """Answer every event with `error`."""
        self.folded = len(self.waiting) // 4
        self.waiting[2::4] = [Failed(error)] * self.folded
        self.answer()

    def answer(self) -> None:
        """Tell those who wait for the events that were folded; none of them runs at once."""
        waiting, count = self.waiting, self.folded
        for at in range(0, 4 * count, 4):
            caller, answer = waiting[at + 1], waiting[at + 2]
            if type(caller) is BatchShare:
                part = caller  # of a type that is known, which spares a call by name
                part.answer(answer.error if type(answer) is Failed else None)
            else:
                self.engine.wakeups.answer(caller, answer)
        self.folded = 0
        before = len(waiting) // 4
        del waiting[: 4 * count]
        self.engine.answered(before, before - count)


def _too_late(key: str) -> Unavailable:
    return TimedOut(
        f"gave up: the events before this one, on {shorten(key)}, were not written before its "
        "time was up. Nothing of this event was sent"
    )
