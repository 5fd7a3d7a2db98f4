"""Updates of single keys: those of one key take turns, and who waits is folded in.

Many tasks that update one key would meet each other's commits as conflicts, and begin again
and again. So one of them goes on for all: it reads the value once, applies what waits, one
change after another, and commits once. Each caller gets the value as of its own change.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from lo_kvs.kvs.batching.deadlines import Deadline, agree
from lo_kvs.kvs.changes import Change, Conflict, Outcome
from lo_kvs.kvs.codec import Json, values
from lo_kvs.kvs.errors import OutcomeUnknown, TimedOut, Unavailable, shorten
from lo_kvs.kvs.tasks import start

#: Changes folded into one commit at most, so that the first of them is answered soon.
FOLD_CHANGES_MAX: Final = 256


class Bytes(Protocol):
    """What is needed of a store."""

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        """The stored bytes of each key."""

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        """Make each change whole or not at all."""

    def try_for_s(self) -> float | None:
        """How many seconds a change is tried for."""

    def failed_attempts(self) -> int:
        """How many attempts to reach the store were in vain so far."""


class Update(NamedTuple):
    """One caller's change, the context that it runs in, where the caller waits, since when."""

    change: Callable[[Json], Json]
    context: contextvars.Context
    answered: asyncio.Future[Json]
    since: float


class Updates:
    """The updates of one store on one event loop."""

    def __init__(self, store: Bytes) -> None:
        self._store = store
        self._waiting: dict[str, list[Update]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}  # the loop keeps only weak references

    def submit(self, key: str, change: Callable[[Json], Json]) -> asyncio.Future[Json]:
        """Make the change in this key's turn; await the value as it was written."""
        loop = asyncio.get_running_loop()
        update = Update(change, contextvars.copy_context(), loop.create_future(), loop.time())
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(update)
        else:
            self._waiting[key] = [update]
            self._begin(key)
        return update.answered

    async def _run(self, key: str) -> None:
        waiting = self._waiting[key]
        trouble = False  # whether those that wait do so because attempts failed
        while waiting:
            failed_attempts = self._store.failed_attempts()
            done = await self._turn(key, waiting, trouble=trouble)
            del waiting[:done]
            trouble = self._store.failed_attempts() != failed_attempts

    def _abandon(self, key: str, error: BaseException) -> None:
        waiting = self._waiting[key]
        unsent = Unavailable(
            f"the task that updated {shorten(key)} was ended by {error!r}; "
            "nothing of this update was sent"
        )
        for update in waiting:  # those of the last turn have their answer
            _answer(update, unsent)
        waiting.clear()

    def _begin(self, key: str) -> None:
        failed = functools.partial(self._abandon, key)
        self._tasks[key] = start(self._run(key), failed, functools.partial(self._ended, key))

    def _ended(self, key: str) -> None:
        if self._waiting[key]:
            self._begin(key)
        else:
            del self._waiting[key], self._tasks[key]

    async def _turn(self, key: str, waiting: list[Update], *, trouble: bool) -> int:
        """Make the first ones together, and answer them. Returns how many have been answered.

        Where there was trouble each has its time from when it came, and what leaves together
        must agree in that; else all have it from now on.
        """
        now = waiting[:FOLD_CHANGES_MAX]
        for_s = None
        try:
            for_s = self._store.try_for_s()
            if trouble:
                now = _agreeing(now, for_s)
            await self._make(key, now, Deadline(for_s, now[0].since if trouble else None))
        except Exception as error:  # noqa: BLE001 - what befell them all
            for update in now:
                _answer(update, error)
            if isinstance(error, Unavailable | OutcomeUnknown):
                return len(now) + _tell_late(key, waiting[len(now) :], for_s, error)
        except BaseException as error:
            # This task is cancelled, or a change raised KeyboardInterrupt or SystemExit.
            unknown = OutcomeUnknown(
                f"the task that updated {shorten(key)} was ended by {error!r}; "
                "the update may have been made"
            )
            for update in now:
                _answer(update, unknown)
            raise
        return len(now)

    async def _make(self, key: str, updates: list[Update], deadline: Deadline) -> None:
        (before,) = await self._store.read((key,), deadline=deadline.for_step())
        while True:
            after, answers = _fold(key, before, updates)
            if any(isinstance(answer, bytes) for answer in answers):
                change = Change(key, before, {key: after})
                (outcome,) = await self._store.commit((change,), deadline=deadline.for_step())
                if isinstance(outcome, Conflict):
                    before = outcome.current
                    deadline.conflict()
                    continue
                if outcome is not None:
                    raise outcome
            break
        for update, answer in zip(updates, answers, strict=True):
            _answer(update, answer)


def _agreeing(updates: list[Update], for_s: float | None) -> list[Update]:
    """The first ones whose deadlines agree."""
    if for_s is None:
        return updates
    now = asyncio.get_running_loop().time()
    first = updates[0].since + for_s
    return [each for each in updates if agree(first, each.since + for_s, now)]


def _tell_late(
    key: str, waiting: list[Update], for_s: float | None, error: Unavailable | OutcomeUnknown
) -> int:
    """Answer those whose own time was up before their turn came; nothing of them was sent."""
    if for_s is None:
        return 0
    now = asyncio.get_running_loop().time()
    late = [each for each in waiting if each.since + for_s <= now]
    if late and isinstance(error, OutcomeUnknown):
        error = TimedOut(
            f"gave up after {now - late[0].since:.3g} s: {shorten(key)} was being updated all the "
            "time, and the store gave no answer. Nothing of this update was sent",
            error.code,
        )
    for update in late:
        _answer(update, error)
    return len(late)


def _fold(
    key: str, data: bytes | None, updates: list[Update]
) -> tuple[bytes | None, list[bytes | Exception]]:
    """The text that the changes come to, and each one's own, or what it raised."""
    answers: list[bytes | Exception] = []
    for change, context, _, _ in updates:
        try:
            value = None if data is None else values.decode(key, data)
            data = values.encode(key, context.run(change, value))
            answers.append(data)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - its caller's
            answers.append(error)  # type: ignore[arg-type]
    return data, answers


def _answer(update: Update, answer: Any) -> None:
    answered = update.answered
    if answered.done():  # the caller was cancelled meanwhile
        return
    if isinstance(answer, StopIteration):  # no future carries one, as no coroutine raises one
        error = RuntimeError("the change raised StopIteration")
        error.__cause__ = answer
        answered.set_exception(error)
    elif isinstance(answer, BaseException):
        answered.set_exception(answer)
    else:
        answered.set_result(values.decode("", answer))
