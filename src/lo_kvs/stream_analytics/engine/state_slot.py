"""A state that is held in the process, and the events that wait for it.

Events of one state are reduced in order. While a commit of the state is under way its next
events gather, and are then folded: reduced one after another, written once.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, Final

from lo_kvs.kvs.backend import Submit
from lo_kvs.kvs.changes import Conflict, Outcome
from lo_kvs.kvs.errors import OutcomeUnknown, Unavailable
from lo_kvs.stream_analytics.engine.batch import BatchShare
from lo_kvs.stream_analytics.engine.call import run
from lo_kvs.stream_analytics.engine.event_queue import EngineBase, EventQueue
from lo_kvs.stream_analytics.engine.fold import (
    UNREAD,
    Event,
    Fold,
    Reducer,
    ReducerFunction,
    StateKeys,
)
from lo_kvs.stream_analytics.engine.wakeups import Failed
from lo_kvs.stream_analytics.errors import ReducerTimedOut

#: Stands for an attempt that was not made while the store was in trouble.
NEVER: Final = (-math.inf, -1)


class StateSlot(EventQueue):
    """One state of one reducer in this process, and the events that wait for it.

    running     whether the state is being read, reduced or committed
    known, data whether the text is what was last seen in the store, and that text
    fresh       whether it was seen there in this turn
    state       what `data` says, as an object that nobody else holds, or UNREAD
    part        the part of the batch that is being taken in, if it has one
    forgotten   whether the engine has let go of it, so that nobody may use it again
    """

    __slots__ = (
        "_attempt",
        "_fold",
        "_submit",
        "_when_committed",
        "data",
        "evicted",
        "fresh",
        "known",
        "part",
        "reducer",
        "running",
        "state",
    )

    def __init__(
        self, engine: EngineBase, submit: Submit, reducer: Reducer, keys: StateKeys
    ) -> None:
        super().__init__(engine, keys)
        self._submit = submit
        self._fold = Fold(reducer, keys)
        self._when_committed = self.committed  # bound once, not at every commit
        self._attempt = NEVER
        self.reducer = reducer
        self.running = False
        self.known = False
        self.fresh = False
        self.data: bytes | None = None
        self.state: Any = UNREAD
        self.evicted = False
        self.part: BatchShare | None = None

    def let_go(self) -> None:
        """The engine does not hold it any more. Others may for a while, but not its content."""
        self.evicted = True
        self.data, self.state = None, UNREAD
        self._fold.begin(None, UNREAD)

    def found(self, data: bytes | None) -> None:
        """The store holds `data`. Compiled code needs exactly `bytes`, and no kind of them."""
        if data is not None and type(data) is not bytes:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise TypeError(
                    f"the store returned {type(data).__name__} for {self.keys.internal!r}; "
                    "`read` must return bytes or None"
                )
            data = bytes(data)
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
        if self.engine.clock.unavailable_since >= self.waiting[3] and not self.fail_expired():
            self.engine.became_idle(self)
            return False
        if self.reducer.awaits:
            self.engine.spawn(self._fold_in_task(), self._fold_lost)
            return False
        self._fold_here()
        return True

    def committed(self, outcome: Outcome) -> None:
        """The change that was handed in has this outcome."""
        self.fresh = False
        if outcome is None:
            self.data, self.state = self._fold.data, self._fold.state
        elif isinstance(outcome, Conflict):
            # Somebody else was faster: the same events again, on what stands there now. They
            # have all their time again where that was answered at once. With deadlines of their
            # own they would leave in small groups, and lose ever more.
            clock = self.engine.clock
            if clock.unavailable_since >= self.waiting[3] and clock.is_prompt(self._attempt):
                self.renew()
            self.found(outcome.current)
            self.advance()
            return
        else:
            self.known = False
            self.fail_folded(outcome)
            if isinstance(outcome, Unavailable | OutcomeUnknown):
                self.engine.clock.in_trouble()
        self.answer()
        self._go_on()

    def fail(self, error: BaseException) -> None:
        """Answer every event that waits with `error`; nothing was written for them."""
        self.known = False
        self.fail_all(error)
        self.engine.became_idle(self)

    def _fold_here(self) -> None:
        """Fold what waits, in whatever task this is: the reducer has no `await`."""
        fold, waiting, function = self._fold, self.waiting, self.reducer.function
        fold.begin(self.data, self.state)
        self.state = UNREAD  # nobody but the fold holds it now
        self.folded = 0
        for at in range(0, self.end(), 4):
            wanted = type(waiting[at + 1]) is not BatchShare
            waiting[at + 2] = self._reduced(fold, function, waiting[at], wanted)
            self.folded += 1
            if fold.is_lost():
                self._make_again(fold, function)

    def _reduced(self, fold: Fold, function: ReducerFunction, event: Event, wanted: bool) -> Any:
        """The answer to one event."""
        try:
            return run(function, event, fold, wanted)
        except BaseException as error:  # noqa: BLE001 - the event's own, whatever it is
            return self._failed(error)

    def _failed(self, error: BaseException) -> Failed:
        """The answer to an event whose reducer raised `error`."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self.engine.end_process(error)
        return Failed(error)

    def _make_again(self, fold: Fold, function: ReducerFunction) -> None:
        """Reduce the events once more: the last of them has used up what those before had made."""
        waiting = self.waiting
        fold.begin_again()
        for at in range(0, 4 * self.folded, 4):
            if type(waiting[at + 2]) is not Failed:
                wanted = type(waiting[at + 1]) is not BatchShare
                waiting[at + 2] = self._reduced(fold, function, waiting[at], wanted)

    async def _fold_in_task(self) -> None:
        fold, waiting = self._fold, self.waiting
        fold.begin(self.data, self.state)
        fold.copies = True
        self.state = UNREAD
        self.folded = 0
        reducer, task = self.reducer, asyncio.current_task()
        limit = self.engine.reducer_timeout if reducer.timeout is None else reducer.timeout
        self.stop = self.end()  # sooner where callers are cancelled meanwhile
        while 4 * self.folded < self.stop:
            at = 4 * self.folded
            wanted = type(waiting[at + 1]) is not BatchShare
            try:
                running = reducer.function(waiting[at], fold.next_state())
                if limit is not None:
                    running = self._within(limit, running)
                answer = fold.apply(await running, wanted)
            except asyncio.CancelledError as error:
                if task is None or task.cancelling():
                    raise  # not the reducer is cancelled, but what runs it
                answer = Failed(error)
            except GeneratorExit as error:
                if _current_task() is not task:
                    raise  # the task was thrown away, and is closed by the garbage collector
                answer = Failed(error)
            except BaseException as error:  # noqa: BLE001 - the event's own, whatever it is
                answer = self._failed(error)
            waiting[at + 2] = answer
            self.folded += 1
            while task is not None and task.cancelling():
                task.uncancel()  # a TaskGroup that failed leaves that (Python 3.11 and 3.12)
        self.stop = 0
        self.hand_in()

    async def _within(self, limit: float, running: Awaitable[Any]) -> Any:
        """What the reducer returns within its time limit."""
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                return await running
        except Exception as error:
            if not timer.expired():
                raise
            raise ReducerTimedOut(self.reducer.name, self.keys.internal, limit) from error

    def _fold_lost(self, error: BaseException) -> None:
        """The task that folds has ended before it handed in a change."""
        self.stop = 0
        self.fail(error)

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
            if self.engine.clock.unavailable_since < came:
                self._submit(change, self._when_committed)
            else:
                self._attempt = self.engine.clock.attempt()
                self._submit(change, self._when_committed, self.engine.clock.deadline(came))
        except Exception as error:  # noqa: BLE001 - the store was closed, say: all must know
            self.fail(error)

    def _go_on(self) -> None:
        self.fresh = False
        if self.waiting:
            self.advance()
        else:
            self.engine.became_idle(self)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs
        return None
