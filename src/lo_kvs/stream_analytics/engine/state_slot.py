"""A slot of the engine: one cached state with its queue of events.

Events of one state are reduced in order. While the state is being committed, new events queue
up. They are then folded: reduced one after another and written once.
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

#: The attempt of a change that was submitted while the store was available.
NEVER: Final = (-math.inf, -1)


class StateSlot(EventQueue):
    """One state of one reducer in this process, and its queued events.

    running  whether the state is being read, reduced or committed
    known    whether `data` is what was last seen in the store
    data     the JSON text of the Internal state; `None` if absent
    fresh    whether it was seen in the store in this round
    state    `data` decoded, an object that nothing else refers to, or UNREAD
    share    the share of the batch that is being submitted, if it has events here
    evicted  whether the engine has dropped the slot, so that it must not be used again
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
        "reducer",
        "running",
        "share",
        "state",
    )

    def __init__(
        self, engine: EngineBase, submit: Submit, reducer: Reducer, keys: StateKeys
    ) -> None:
        super().__init__(engine, keys)
        self._submit = submit
        self._fold = Fold(reducer, keys)
        self._when_committed = self.committed  # bound once, not for every commit
        self._attempt = NEVER
        self.reducer = reducer
        self.running = False
        self.known = False
        self.fresh = False
        self.data: bytes | None = None
        self.state: Any = UNREAD
        self.evicted = False
        self.share: BatchShare | None = None

    def evict(self) -> None:
        """The engine drops the slot. References to it may remain, so its content is freed here."""
        self.evicted = True
        self.data, self.state = None, UNREAD
        self._fold.begin(None, UNREAD)

    def found(self, data: bytes | None) -> None:
        """The store returned `data`. Compiled code needs `bytes` themselves, not a subclass."""
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
        """Fold the queued events, and submit the change."""
        if self.fold_at_once():
            self.submit_change()

    def fold_at_once(self) -> bool:
        """Fold the queued events if the reducer never awaits; then call `submit_change`.

        A reducer that awaits runs in a task, which does both.
        """
        if self.engine.deadlines.unavailable_since >= self.waiting[3] and not self.fail_expired():
            self.engine.became_idle(self)
            return False
        if self.reducer.awaits:
            self.engine.spawn(self._fold_in_task(), self._fold_failed)
            return False
        self._fold_here()
        return True

    def committed(self, outcome: Outcome) -> None:
        """The submitted change has this outcome."""
        self.fresh = False
        if outcome is None:
            self.data, self.state = self._fold.data, self._fold.state
        elif isinstance(outcome, Conflict):
            # Lost the race: reduce the same events again on the current value. If the conflict
            # was reported promptly, their deadlines restart. With different deadlines they would
            # be sent in small groups, and lose more races.
            deadlines = self.engine.deadlines
            if deadlines.unavailable_since >= self.waiting[3] and deadlines.is_prompt(
                self._attempt
            ):
                self.renew()
            self.found(outcome.current)
            self.advance()
            return
        else:
            self.known = False
            self.fail_folded(outcome)
            if isinstance(outcome, Unavailable | OutcomeUnknown):
                self.engine.deadlines.mark_unavailable()
        self.answer()
        self._continue()

    def fail(self, error: BaseException) -> None:
        """Fail every queued event with `error`; nothing was written for them."""
        self.known = False
        self.fail_all(error)
        self.engine.became_idle(self)

    def _fold_here(self) -> None:
        """Fold the queued events in the current task: the reducer has no `await`."""
        fold, waiting, function = self._fold, self.waiting, self.reducer.function
        fold.begin(self.data, self.state)
        self.state = UNREAD  # only the fold refers to it now
        self.folded = 0
        for at in range(0, self.end(), 4):
            wanted = type(waiting[at + 1]) is not BatchShare
            waiting[at + 2] = self._reduced(fold, function, waiting[at], wanted)
            self.folded += 1
            if fold.is_lost():
                self._reduce_again(fold, function)

    def _reduced(self, fold: Fold, function: ReducerFunction, event: Event, wanted: bool) -> Any:
        """The result of one event."""
        try:
            return run(function, event, fold, wanted)
        except BaseException as error:  # noqa: BLE001 - the error of this event alone
            return self._failed(error)

    def _failed(self, error: BaseException) -> Failed:
        """The result of an event whose reducer raised `error`."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self.engine.end_process(error)
        return Failed(error)

    def _reduce_again(self, fold: Fold, function: ReducerFunction) -> None:
        """Reduce the events again: the last one consumed the state that the earlier ones made."""
        waiting = self.waiting
        fold.restart()
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
        self.stop = self.end()  # less if callers are cancelled meanwhile
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
                    raise  # the task itself is cancelled, not the reducer
                answer = Failed(error)
            except GeneratorExit as error:
                if _current_task() is not task:
                    raise  # the task was dropped, and the garbage collector closes it
                answer = Failed(error)
            except BaseException as error:  # noqa: BLE001 - the error of this event alone
                answer = self._failed(error)
            waiting[at + 2] = answer
            self.folded += 1
            while task is not None and task.cancelling():
                task.uncancel()  # left over from a failed TaskGroup (Python 3.11 and 3.12)
        self.stop = 0
        self.submit_change()

    async def _within(self, limit: float, running: Awaitable[Any]) -> Any:
        """The reducer's result. Raises `ReducerTimedOut` after `limit` seconds."""
        timer = asyncio.timeout(limit)
        try:
            async with timer:
                return await running
        except Exception as error:
            if not timer.expired():
                raise
            raise ReducerTimedOut(self.reducer.name, self.keys.internal, limit) from error

    def _fold_failed(self, error: BaseException) -> None:
        """The task that folds ended before it submitted a change."""
        self.stop = 0
        self.fail(error)

    def submit_change(self) -> None:
        """Submit the fold's change.

        If there is none, the state is still compared with the store, unless it was just read
        from there. Otherwise a reducer that writes nothing would never see other writers' changes.
        """
        try:
            change = self._fold.change(not self.fresh)
        except Exception as error:  # noqa: BLE001 - e.g. out of memory; all callers get it
            self.fail(error)
            return
        if change is None:
            self.state = self._fold.state
            self.answer()
            self._continue()
            return
        self.data = None  # only the change refers to it, until it is packed
        submitted_at = self.waiting[3]
        try:
            if self.engine.deadlines.unavailable_since < submitted_at:
                self._submit(change, self._when_committed)
            else:
                self._attempt = self.engine.deadlines.attempt()
                self._submit(
                    change, self._when_committed, self.engine.deadlines.deadline(submitted_at)
                )
        except Exception as error:  # noqa: BLE001 - e.g. the store was closed; all callers get it
            self.fail(error)

    def _continue(self) -> None:
        self.fresh = False
        if self.waiting:
            self.advance()
        else:
            self.engine.became_idle(self)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no running event loop
        return None
