"""A state that is held in the process, and the events that wait for it.

Events of one state are reduced in order. While a commit of the state is under way its next
events gather, and are then folded: reduced one after another, written once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from learning_observer.kvs.changes import Conflict, Outcome
from learning_observer.kvs.errors import (
    KVSError,
    OutcomeUnknown,
    Unavailable,
)
from learning_observer.kvs.primitives import Submit
from learning_observer.stream_analytics.batch import Part
from learning_observer.stream_analytics.event_queue import EventQueue, Keeper
from learning_observer.stream_analytics.fold import (
    UNREAD,
    Event,
    Fold,
    Reducer,
    ReducerFunction,
    StateKeys,
)
from learning_observer.stream_analytics.running import run
from learning_observer.stream_analytics.wakeups import Failed


class HeldState(EventQueue):
    """One state of one reducer in this process, and the events that wait for it.

    running     whether the state is being read, reduced or committed
    known, data whether the text is what was last seen in the store, and that text
    fresh       whether it was seen there in this turn
    state       what `data` says, as an object that nobody else holds, or UNREAD
    part        the part of the batch that is being taken in, if it has one
    forgotten   whether the engine has let go of it, so that nobody may use it again
    """

    __slots__ = (
        "_fold",
        "_submit",
        "_when_committed",
        "data",
        "forgotten",
        "fresh",
        "known",
        "part",
        "reducer",
        "running",
        "state",
    )

    def __init__(self, keeper: Keeper, submit: Submit, reducer: Reducer, keys: StateKeys) -> None:
        super().__init__(keeper, keys)
        self._submit = submit
        self._fold = Fold(reducer, keys)
        self._when_committed = self.committed  # bound once, not at every commit
        self.reducer = reducer
        self.running = False
        self.known = False
        self.fresh = False
        self.data: bytes | None = None
        self.state: Any = UNREAD
        self.forgotten = False
        self.part: Part | None = None

    def found(self, data: bytes | None) -> None:
        """The store holds `data`."""
        self.known = self.fresh = True
        self.data, self.state = data, UNREAD

    def advance(self) -> None:
        """Fold what waits, and hand in the change."""
        if self.fold_at_once():
            self.hand_in()

    def fold_at_once(self) -> bool:
        """Fold what waits, where the reducer never awaits; then `hand_in` is to be called.

        One that awaits runs in a task, which does both.
        """
        if self.keeper.clock.troubled_at >= self.waiting[3] and not self.tell_late():
            self.keeper.rest(self)
            return False
        if self.reducer.awaits:
            self.keeper.spawn(self._fold_in_task())
            return False
        self._fold_here()
        return True

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
            self.fail_folded(outcome)
            if isinstance(outcome, Unavailable | OutcomeUnknown):
                self.keeper.clock.in_trouble()
        self.answer()
        self._go_on()

    def fail(self, error: BaseException) -> None:
        """Answer every event that waits with `error`; nothing was written for them."""
        self.known = False
        self.fail_all(error)
        self.keeper.rest(self)

    def _fold_here(self) -> None:
        """Fold what waits, in whatever task this is: the reducer has no `await`."""
        fold, waiting, function = self._fold, self.waiting, self.reducer.function
        fold.begin(self.data, self.state)
        self.state = UNREAD  # nobody but the fold holds it now
        self.folded = 0
        for at in range(0, self.end(), 4):
            wanted = type(waiting[at + 1]) is not Part
            waiting[at + 2] = self._reduced(fold, function, waiting[at], wanted)
            self.folded += 1
            if fold.is_lost():
                self._make_again(fold, function)

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
        for at in range(0, 4 * self.folded, 4):
            if type(waiting[at + 2]) is not Failed:
                wanted = type(waiting[at + 1]) is not Part
                waiting[at + 2] = self._reduced(fold, function, waiting[at], wanted)

    async def _fold_in_task(self) -> None:
        fold, waiting = self._fold, self.waiting
        try:
            fold.begin(self.data, self.state)
            fold.copies = True
            self.state = UNREAD
            self.folded = 0
            for at in range(0, self.end(), 4):
                try:
                    result = await self.reducer.function(waiting[at], fold.next_state())
                    waiting[at + 2] = fold.take(result, type(waiting[at + 1]) is not Part)
                except asyncio.CancelledError as error:
                    if _is_cancelled():
                        raise  # not the reducer is cancelled, but what runs it
                    waiting[at + 2] = Failed(error)
                except Exception as error:  # noqa: BLE001 - the event's own, told to its caller
                    waiting[at + 2] = Failed(error)
                self.folded += 1
                _forget_cancellations()
        except BaseException as error:  # the event loop is being shut down
            self.fail(error)
            raise
        self.hand_in()

    def hand_in(self) -> None:
        """Submit the fold's change.

        Without one, the state is still held against the store, unless it has just come from
        there: else a reducer that writes nothing would never see what others have written.
        """
        try:
            change = self._fold.change(not self.fresh)
        except Exception as error:  # noqa: BLE001 - no memory, say: all who wait must know
            self.fail(error)
            return
        if change is None:
            self.state = self._fold.state
            self.answer()
            self._go_on()
            return
        self.data = None  # the change alone holds it, until it has been packed
        came = self.waiting[3]
        try:
            if self.keeper.clock.troubled_at < came:
                self._submit(change, self._when_committed)
            else:
                self._submit(change, self._when_committed, self.keeper.clock.deadline(came))
        except KVSError as error:  # the store was closed
            self.fail(error)

    def _go_on(self) -> None:
        self.fresh = False
        if self.waiting:
            self.advance()
        else:
            self.keeper.rest(self)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _forget_cancellations() -> None:
    """A TaskGroup that failed leaves its task counted as cancelled (Python 3.11 and 3.12)."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
