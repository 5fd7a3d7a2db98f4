"""A state that is held in the process, and the events that wait for it.

Events of one state are reduced in order. While a commit of the state is under way its next
events gather, and are then folded: reduced one after another, written once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Protocol, TypeAlias

from learning_observer.kvs.changes import Conflict, Outcome
from learning_observer.kvs.codec import Json
from learning_observer.kvs.errors import KVSError
from learning_observer.kvs.store import Submit
from learning_observer.stream_analytics.batch import Part
from learning_observer.stream_analytics.fold import UNREAD, Event, Fold, Reducer, StateKeys
from learning_observer.stream_analytics.running import run

#: Events folded into one commit at most, so that the first of them is answered soon.
FOLD_EVENTS_MAX: Final = 256

#: Who waits for an event: a caller of `process`, or a part of a batch.
Answered: TypeAlias = "asyncio.Future[Json] | Part"


class Keeper(Protocol):
    """What a held state needs of the engine that keeps it."""

    def answered(self, events: int) -> None:
        """So many events wait no more."""

    def rest(self, held: HeldState) -> None:
        """No event waits for the state any more."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in a task."""


class Failed:
    """Stands among the answers for what went wrong with an event."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class HeldState:
    """One state of one reducer in this process, and the events that wait for it.

    events, answered  the events that wait, and who waits for each of their answers
    running           whether the state is being read, reduced or committed
    known, data       whether the text is what was last seen in the store, and that text
    fresh             whether it was seen there in this turn
    state             what `data` says, as an object that nobody else holds, or UNREAD
    size              the bytes that are counted against the cache
    keeper            the engine that holds it
    part              the part of the batch that is being taken in, if it has one
    forgotten         whether the engine has let go of it, so that nobody may use it again
    """

    __slots__ = (
        "_answers",
        "_fold",
        "_submit",
        "_when_committed",
        "answered",
        "data",
        "events",
        "forgotten",
        "fresh",
        "keeper",
        "keys",
        "known",
        "part",
        "reducer",
        "running",
        "size",
        "state",
    )

    def __init__(self, engine: Keeper, submit: Submit, reducer: Reducer, keys: StateKeys) -> None:
        self.keeper = engine
        self._submit = submit
        self._fold = Fold(reducer, keys)
        self._answers: list[Any] = []
        self._when_committed = self.committed  # bound once, not at every commit
        self.keys = keys
        self.reducer = reducer
        self.events: list[Event] = []
        self.answered: list[Answered] = []
        self.running = False
        self.known = False
        self.fresh = False
        self.data: bytes | None = None
        self.state: Any = UNREAD
        self.size = 0
        self.forgotten = False
        self.part: Part | None = None

    def found(self, data: bytes | None) -> None:
        """The store holds `data`."""
        self.known = self.fresh = True
        self.data, self.state = data, UNREAD

    def advance(self) -> None:
        """Fold what waits, at once where the reducer never awaits, and hand in the change."""
        if self.reducer.awaits:
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
            lost = Failed(outcome)
            self._answers = [
                answer if isinstance(answer, Failed) else lost for answer in self._answers
            ]
        self._answer()
        self._go_on()

    def fail(self, error: BaseException) -> None:
        """Answer every event that waits with `error`; nothing was written for them."""
        self.known = False
        self._answers = [Failed(error)] * len(self.events)
        self._answer()
        self.keeper.rest(self)

    def _fold_at_once(self) -> None:
        """Fold what waits, in whatever task this is: the reducer has no `await`."""
        fold, answers, function = self._fold, self._answers, self.reducer.function
        fold.begin(self.data, self.state)
        self.state = UNREAD  # nobody but the fold holds it now
        answers.clear()
        count = min(len(self.events), FOLD_EVENTS_MAX)
        for at in range(count):
            event, answered = self.events[at], self.answered[at]
            try:
                result, internal_owned, external_owned = run(function, event, fold)
                wanted = type(answered) is not Part
                answers.append(fold.take(result, wanted, internal_owned, external_owned))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the event's own
                answers.append(Failed(error))
            except BaseException as error:  # the process is to end
                self.fail(error)
                raise

    async def _fold_in_task(self) -> None:
        fold, answers = self._fold, self._answers
        try:
            fold.begin(self.data, self.state)
            self.state = UNREAD
            answers.clear()
            waiting = list(zip(self.events[:FOLD_EVENTS_MAX], self.answered, strict=False))
            for event, answered in waiting:
                try:
                    result = await self.reducer.function(event, fold.next_state())
                    answers.append(fold.take(result, type(answered) is not Part))
                except asyncio.CancelledError as error:
                    if _is_cancelled():
                        raise  # not the reducer is cancelled, but what runs it
                    answers.append(Failed(error))
                except Exception as error:  # noqa: BLE001 - the event's own, told to its caller
                    answers.append(Failed(error))
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
        try:
            self._submit(change, self._when_committed)
        except KVSError as error:  # the store was closed
            self.fail(error)

    def _answer(self) -> None:
        """Tell those who wait for the events that were folded; none of them runs at once."""
        answers, waited, count = self._answers, self.answered, len(self._answers)
        for at in range(count):
            answer, caller = answers[at], waited[at]
            if isinstance(caller, Part):
                caller.answer(answer.error if type(answer) is Failed else None)
            elif caller.done():  # it was cancelled meanwhile
                continue
            elif type(answer) is Failed:
                caller.set_exception(answer.error)
            else:
                caller.set_result(answer)
        answers.clear()
        del self.events[:count], waited[:count]
        self.keeper.answered(count)

    def _go_on(self) -> None:
        self.fresh = False
        if self.events:
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
