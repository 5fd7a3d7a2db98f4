"""The queue of events of one state, each with its caller, its result and its submission time."""

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

#: How many events one commit folds at most, so that the first one gets its result soon. For a
#: batch, whose events get their results together, so that the event loop is not blocked.
FOLD_EVENTS_MAX: Final = 256
FOLD_OF_BATCH_MAX: Final = 1024
#: From this queue length on, events of cancelled callers are dropped; again when the queue has
#: doubled since.
SWEEP_EVENTS: Final = 1024


class EngineBase:
    """What a state and its events need from their engine.

    deadlines        when events were submitted, and until when they are retried
    wakeups          resolves the futures of callers
    reducer_timeout  seconds that a reducer without a limit of its own may take for one event
    """

    __slots__ = ("deadlines", "reducer_timeout", "wakeups")

    def __init__(
        self, deadlines: EventDeadlines, wakeups: Wakeups, reducer_timeout: float | None
    ) -> None:
        self.deadlines = deadlines
        self.wakeups = wakeups
        self.reducer_timeout = reducer_timeout

    def answered(self, before: int, after: int) -> None:
        """The number of queued events of one state changed from `before` to `after`."""
        raise NotImplementedError

    def became_idle(self, slot: Any) -> None:
        """The state has no queued events any more."""
        raise NotImplementedError

    def spawn(
        self, work: Coroutine[Any, Any, None], on_failure: Callable[[BaseException], object]
    ) -> None:
        """Run `work` in a task. If the task ends early, call `on_failure(error)`."""
        raise NotImplementedError

    def end_process(self, error: BaseException) -> None:
        """Raise `error`, which a reducer raised to end the process, from the event loop."""
        raise NotImplementedError


class EventQueue(Cached):
    """The queued events of one state, in order.

    waiting  four items per event: the event, its caller, its result once it has one, and the time
             it was submitted. One flat list costs the garbage collector less than a list of lists
    folded   how many events at the head of the queue have a result
    stop     the end, in `waiting`, of the events that a task is folding
    engine   the engine that the state belongs to
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
        """Queue an event; `caller` gets its result."""
        waiting = self.waiting
        waiting.append(event)
        waiting.append(caller)
        waiting.append(None)
        waiting.append(self.engine.deadlines.now)
        if len(waiting) > self._sweep_at:
            self.sweep()

    def end(self) -> int:
        """The end, in `waiting`, of the events to fold now."""
        waiting = self.waiting
        most = FOLD_OF_BATCH_MAX if type(waiting[1]) is BatchShare else FOLD_EVENTS_MAX
        end = 4 * min(len(waiting) // 4, most)
        submitted_at = waiting[3]
        first = (
            None
            if self.engine.deadlines.unavailable_since < submitted_at
            else self.engine.deadlines.deadline(submitted_at)
        )
        if first is not None:  # events that are written together share one deadline
            for at in range(7, end, 4):
                if not agree(first, first + waiting[at] - submitted_at, self.engine.deadlines.now):
                    return at - 3
        return end

    def fail_expired(self) -> bool:
        """Fail the events whose deadline has passed, in order. Returns whether events are left."""
        waiting = self.waiting
        self.folded = 0
        for at in range(0, len(waiting), 4):
            until = self.engine.deadlines.deadline(waiting[at + 3])
            if until is None or until > self.engine.deadlines.now:
                break
            waiting[at + 2] = Failed(_timed_out(self.keys.internal))
            self.folded += 1
        self.answer()
        return bool(self.waiting)

    def sweep(self) -> None:
        """Drop events that were not started and whose callers were cancelled.

        The first event stays, as it is being processed. `waiting` stays the same list, as a task
        may be folding it.
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
        """Restart the deadlines of the events: the delay was not caused by the store."""
        now = self.engine.deadlines.attempt()[0]
        self.waiting[3::4] = [now] * (len(self.waiting) // 4)

    def fail_folded(self, error: BaseException) -> None:
        """The write of the folded events failed with `error`; events that failed keep their own."""
        for at in range(2, 4 * self.folded, 4):
            if type(self.waiting[at]) is not Failed:
                self.waiting[at] = Failed(error)

    def fail_all(self, error: BaseException) -> None:
        """Fail every event with `error`."""
        self.folded = len(self.waiting) // 4
        self.waiting[2::4] = [Failed(error)] * self.folded
        self.answer()

    def answer(self) -> None:
        """Resolve the callers of the folded events. Their code runs later."""
        waiting, count = self.waiting, self.folded
        for at in range(0, 4 * count, 4):
            caller, answer = waiting[at + 1], waiting[at + 2]
            if type(caller) is BatchShare:
                share = caller  # typed, so that the compiled code calls the method directly
                share.answer(answer.error if type(answer) is Failed else None)
            else:
                self.engine.wakeups.answer(caller, answer)
        self.folded = 0
        before = len(waiting) // 4
        del waiting[: 4 * count]
        self.engine.answered(before, before - count)


def _timed_out(key: str) -> Unavailable:
    return TimedOut(
        f"gave up: the earlier events of {shorten(key)} were not written before the deadline of "
        "this event. Nothing of this event was sent"
    )
