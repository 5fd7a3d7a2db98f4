"""Updates: `Store.update` of one key; queued updates of a key are folded into one commit.

If many tasks updated one key independently, their commits would conflict and retry again and
again. So one task does it for all: it reads the value once, applies the queued changes one after
another, and commits once. Each caller gets the value after its own change.
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

#: The maximum number of changes in one commit, so that the first one is answered soon.
FOLD_CHANGES_MAX: Final = 256


class Bytes(Protocol):
    """The methods of a store that are needed here."""

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        """The stored bytes of each key."""

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        """Make each change atomically."""

    def try_for_s(self) -> float | None:
        """How many seconds a change is retried."""

    def failed_attempts(self) -> int:
        """The number of failed attempts to reach the store so far."""


class Update(NamedTuple):
    """One caller's change, its context, the future for the answer, and when it was submitted."""

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
        """Queue the change of this key; the future gets the value that was written."""
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
        after_failure = False  # whether the queued updates wait because of failed attempts
        while waiting:
            failed_attempts = self._store.failed_attempts()
            done = await self._update_some(key, waiting, after_failure=after_failure)
            del waiting[:done]
            after_failure = self._store.failed_attempts() != failed_attempts

    def _abandon(self, key: str, error: BaseException) -> None:
        waiting = self._waiting[key]
        unsent = Unavailable(
            f"the task that updated {shorten(key)} ended with {error!r}. This update was not sent"
        )
        for update in waiting:  # the others already have their answer
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

    async def _update_some(self, key: str, waiting: list[Update], *, after_failure: bool) -> int:
        """Make the first updates in one commit. Returns how many were answered.

        After failed attempts, the deadline of each update starts when it was submitted, and only
        updates with similar deadlines share a commit. Otherwise all deadlines start now.
        """
        now = waiting[:FOLD_CHANGES_MAX]
        for_s = None
        try:
            for_s = self._store.try_for_s()
            if after_failure:
                now = _agreeing(now, for_s)
            await self._make(key, now, Deadline(for_s, now[0].since if after_failure else None))
        except Exception as error:  # noqa: BLE001 - passed to all callers
            for update in now:
                _answer(update, error)
            if isinstance(error, Unavailable | OutcomeUnknown):
                return len(now) + _fail_expired(key, waiting[len(now) :], for_s, error)
        except BaseException as error:
            # This task is cancelled, or a change raised KeyboardInterrupt or SystemExit.
            unknown = OutcomeUnknown(
                f"the task that updated {shorten(key)} ended with {error!r}. "
                "The update may have been made"
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
    """The first updates with similar deadlines."""
    if for_s is None:
        return updates
    now = asyncio.get_running_loop().time()
    first = updates[0].since + for_s
    return [each for each in updates if agree(first, each.since + for_s, now)]


def _fail_expired(
    key: str, waiting: list[Update], for_s: float | None, error: Unavailable | OutcomeUnknown
) -> int:
    """Fail the updates whose deadline passed while they were queued; they were not sent."""
    if for_s is None:
        return 0
    now = asyncio.get_running_loop().time()
    late = [each for each in waiting if each.since + for_s <= now]
    if late and isinstance(error, OutcomeUnknown):
        error = TimedOut(
            f"gave up after {now - late[0].since:.3g} s: an earlier update of {shorten(key)} got "
            "no reply from the store. This update was not sent",
            error.code,
        )
    for update in late:
        _answer(update, error)
    return len(late)


def _fold(
    key: str, data: bytes | None, updates: list[Update]
) -> tuple[bytes | None, list[bytes | Exception]]:
    """The text after all changes, and for each change its own text or its exception."""
    answers: list[bytes | Exception] = []
    for change, context, _, _ in updates:
        try:
            value = None if data is None else values.decode(key, data)
            data = values.encode(key, context.run(change, value))
            answers.append(data)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - passed to its caller
            answers.append(error)  # type: ignore[arg-type]
    return data, answers


def _answer(update: Update, answer: Any) -> None:
    answered = update.answered
    if answered.done():  # the caller was cancelled meanwhile
        return
    if isinstance(answer, StopIteration):  # futures cannot have it as their exception
        error = RuntimeError("the change raised StopIteration")
        error.__cause__ = answer
        answered.set_exception(error)
    elif isinstance(answer, BaseException):
        answered.set_exception(answer)
    else:
        answered.set_result(values.decode("", answer))
