"""A state that is held in the process, and the events that wait for it.

Events of one state are reduced in order. While a commit of the state is under way its next
events gather, and are then folded: reduced one after another, written once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, Final

from learning_observer.kvs.changes import Conflict, Outcome
from learning_observer.kvs.codec import Json
from learning_observer.kvs.errors import (
    KVSError,
    OutcomeUnknown,
    TimedOut,
    Unavailable,
    shorten,
)
from learning_observer.kvs.patience import agree
from learning_observer.kvs.store import Submit
from learning_observer.stream_analytics.batch import Part
from learning_observer.stream_analytics.cache import Cached
from learning_observer.stream_analytics.fold import (
    UNREAD,
    Event,
    Fold,
    Reducer,
    ReducerFunction,
    StateKeys,
)
from learning_observer.stream_analytics.running import run
from learning_observer.stream_analytics.wakeups import Failed, Wakeups

#: Events folded into one commit at most, so that the first of them is answered soon.
FOLD_EVENTS_MAX: Final = 256


class Keeper:
    """What a held state needs of the engine that keeps it.

    wakeups      wakes those who wait
    now          the event loop's time, to a twentieth of a second, while events wait
    troubled_at  when the store was last found not to answer: what had come by then has its
                 deadline from when it came
    """

    __slots__ = ("now", "troubled_at", "wakeups")

    def __init__(self, wakeups: Wakeups) -> None:
        self.wakeups = wakeups
        self.now: Any = -math.inf
        self.troubled_at: Any = -math.inf

    def deadline(self, came: float) -> float | None:
        """Until when an event that came then is tried, if ever."""
        raise NotImplementedError

    def in_trouble(self) -> None:
        """The store has just been found not to answer."""
        raise NotImplementedError

    def answered(self, events: int) -> None:
        """So many events wait no more."""
        raise NotImplementedError

    def rest(self, held: HeldState) -> None:
        """No event waits for the state any more."""
        raise NotImplementedError

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task."""
        raise NotImplementedError


class HeldState(Cached):
    """One state of one reducer in this process, and the events that wait for it.

    waiting     the events that wait, each followed by who waits for its answer, by the answer
                once there is one, and by when it came: a list for each would be a lot to look
                after
    running     whether the state is being read, reduced or committed
    known, data whether the text is what was last seen in the store, and that text
    fresh       whether it was seen there in this turn
    state       what `data` says, as an object that nobody else holds, or UNREAD
    keeper      the engine that holds it
    part        the part of the batch that is being taken in, if it has one
    forgotten   whether the engine has let go of it, so that nobody may use it again
    """

    __slots__ = (
        "_fold",
        "_folded",
        "_submit",
        "_when_committed",
        "data",
        "forgotten",
        "fresh",
        "keeper",
        "keys",
        "known",
        "part",
        "reducer",
        "running",
        "state",
        "waiting",
    )

    def __init__(self, keeper: Keeper, submit: Submit, reducer: Reducer, keys: StateKeys) -> None:
        super().__init__()
        self.keeper = keeper
        self._submit = submit
        self._fold = Fold(reducer, keys)
        self._folded = 0  # so many of the events that wait have their answer
        self._when_committed = self.committed  # bound once, not at every commit
        self.keys = keys
        self.reducer = reducer
        self.waiting: list[Any] = []
        self.running = False
        self.known = False
        self.fresh = False
        self.data: bytes | None = None
        self.state: Any = UNREAD
        self.forgotten = False
        self.part: Part | None = None

    def add(self, event: Event, caller: asyncio.Future[Json] | Part) -> None:
        """One event more waits, and `caller` for its answer."""
        waiting = self.waiting
        waiting.append(event)
        waiting.append(caller)
        waiting.append(None)
        waiting.append(self.keeper.now)

    def found(self, data: bytes | None) -> None:
        """The store holds `data`."""
        self.known = self.fresh = True
        self.data, self.state = data, UNREAD

    def advance(self) -> None:
        """Fold what waits, at once where the reducer never awaits, and hand in the change."""
        if self.keeper.troubled_at >= self.waiting[3] and not self._tell_late():
            self.keeper.rest(self)
        elif self.reducer.awaits:
            self.keeper.spawn(self._fold_in_task())
        else:
            self._fold_at_once()
            self._hand_in()

    def committed(self, outcome: Outcome) -> None:
        """The change that was handed in has this outcome."""
        self.fresh = False
        if outcome is None:
            self.data, self.state = self._fold.data, self._fold.state
        elif isinstance(outcome, Conflict):
            # Somebody else was faster: the same events again, on what stands there now.
            self.found(outcome.current)
            self.advance()
            return
        else:
            self.known = False
            for at in range(2, 4 * self._folded, 4):
                if type(self.waiting[at]) is not Failed:
                    self.waiting[at] = Failed(outcome)
            if isinstance(outcome, Unavailable | OutcomeUnknown):
                self.keeper.in_trouble()
        self._answer()
        self._go_on()

    def fail(self, error: BaseException) -> None:
        """Answer every event that waits with `error`; nothing was written for them."""
        self.known = False
        self.waiting[2::4] = [Failed(error)] * (len(self.waiting) // 4)
        self._folded = len(self.waiting) // 4
        self._answer()
        self.keeper.rest(self)

    def _fold_at_once(self) -> None:
        """Fold what waits, in whatever task this is: the reducer has no `await`."""
        fold, waiting, function = self._fold, self.waiting, self.reducer.function
        fold.begin(self.data, self.state)
        self.state = UNREAD  # nobody but the fold holds it now
        self._folded = 0
        for at in range(0, self._end(), 4):
            wanted = type(waiting[at + 1]) is not Part
            waiting[at + 2] = self._reduced(fold, function, waiting[at], wanted)
            self._folded += 1
            if fold.is_lost():
                self._make_again(fold, function)

    def _end(self) -> int:
        """Where those end, in `waiting`, that are folded now."""
        waiting = self.waiting
        end = 4 * min(len(waiting) // 4, FOLD_EVENTS_MAX)
        came = waiting[3]
        first = None if self.keeper.troubled_at < came else self.keeper.deadline(came)
        if first is not None:  # what is written together has one deadline
            for at in range(7, end, 4):
                if not agree(first, first + waiting[at] - came, self.keeper.now):
                    return at - 3
        return end

    def _tell_late(self) -> bool:
        """Answer those whose time is up, in their order. Returns whether any event is left."""
        waiting = self.waiting
        self._folded = 0
        for at in range(0, len(waiting), 4):
            until = self.keeper.deadline(waiting[at + 3])
            if until is None or until > self.keeper.now:
                break
            waiting[at + 2] = Failed(_too_late(self.keys.internal))
            self._folded += 1
        self._answer()
        return bool(self.waiting)

    def _reduced(self, fold: Fold, function: ReducerFunction, event: Event, wanted: bool) -> Any:
        """The answer to one event."""
        try:
            return run(function, event, fold, wanted)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the event's own
            return Failed(error)
        except BaseException as error:  # the process is to end
            self.fail(error)
            raise

    def _make_again(self, fold: Fold, function: ReducerFunction) -> None:
        """Reduce the events once more: the last of them has used up what those before had made."""
        waiting = self.waiting
        fold.begin_again()
        for at in range(0, 4 * self._folded, 4):
            if type(waiting[at + 2]) is not Failed:
                wanted = type(waiting[at + 1]) is not Part
                waiting[at + 2] = self._reduced(fold, function, waiting[at], wanted)

    async def _fold_in_task(self) -> None:
        fold, waiting = self._fold, self.waiting
        try:
            fold.begin(self.data, self.state)
            fold.copies = True
            self.state = UNREAD
            self._folded = 0
            for at in range(0, self._end(), 4):
                try:
                    result = await self.reducer.function(waiting[at], fold.next_state())
                    waiting[at + 2] = fold.take(result, type(waiting[at + 1]) is not Part)
                except asyncio.CancelledError as error:
                    if _is_cancelled():
                        raise  # not the reducer is cancelled, but what runs it
                    waiting[at + 2] = Failed(error)
                except Exception as error:  # noqa: BLE001 - the event's own, told to its caller
                    waiting[at + 2] = Failed(error)
                self._folded += 1
                _forget_cancellations()
        except BaseException as error:  # the event loop is being shut down
            self.fail(error)
            raise
        self._hand_in()

    def _hand_in(self) -> None:
        """Submit the fold's change.

        Without one, the state is still held against the store, unless it has just come from
        there: else a reducer that writes nothing would never see what others have written.
        """
        change = self._fold.change(not self.fresh)
        if change is None:
            self.state = self._fold.state
            self._answer()
            self._go_on()
            return
        came = self.waiting[3]
        try:
            if self.keeper.troubled_at < came:
                self._submit(change, self._when_committed)
            else:
                self._submit(change, self._when_committed, self.keeper.deadline(came))
        except KVSError as error:  # the store was closed
            self.fail(error)

    def _answer(self) -> None:
        """Tell those who wait for the events that were folded; none of them runs at once."""
        waiting, count = self.waiting, self._folded
        for at in range(0, 4 * count, 4):
            caller, answer = waiting[at + 1], waiting[at + 2]
            if type(caller) is Part:
                caller.answer(answer.error if type(answer) is Failed else None)
            else:
                self.keeper.wakeups.answer(caller, answer)
        self._folded = 0
        del waiting[: 4 * count]
        self.keeper.answered(count)

    def _go_on(self) -> None:
        self.fresh = False
        if self.waiting:
            self.advance()
        else:
            self.keeper.rest(self)


def _too_late(key: str) -> Unavailable:
    return TimedOut(
        f"gave up: events before this one were tried in vain all the time, on {shorten(key)}. "
        "Nothing of this event was sent"
    )


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _forget_cancellations() -> None:
    """A TaskGroup that failed leaves its task counted as cancelled (Python 3.11 and 3.12)."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
