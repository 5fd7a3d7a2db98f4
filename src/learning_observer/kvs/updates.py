"""Updates of single keys: those of one key take turns, and who waits is folded in.

Many tasks that update one key would meet each other's commits as conflicts, and begin again
and again. So one of them goes on for all: it reads the value once, applies what waits, one
change after another, and commits once. Each caller gets the value as of its own change.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from learning_observer.kvs import texts
from learning_observer.kvs.changes import Change, Conflict, Outcome
from learning_observer.kvs.codec import Json

#: Changes folded into one commit at most, so that the first of them is answered soon.
FOLD_CHANGES_MAX: Final = 256


class Bytes(Protocol):
    """What is needed of a store."""

    async def read(self, keys: Sequence[str]) -> list[bytes | None]:
        """The stored bytes of each key."""

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Make each change whole or not at all."""


class Update(NamedTuple):
    """One caller's change, the context that it runs in, and where the caller waits."""

    change: Callable[[Json], Json]
    context: contextvars.Context
    answered: asyncio.Future[Json]


class Updates:
    """The updates of one store on one event loop."""

    def __init__(self, store: Bytes) -> None:
        self._store = store
        self._waiting: dict[str, list[Update]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # the loop keeps only weak references

    def submit(self, key: str, change: Callable[[Json], Json]) -> asyncio.Future[Json]:
        """Make the change in this key's turn; await the value as it was written."""
        loop = asyncio.get_running_loop()
        update = Update(change, contextvars.copy_context(), loop.create_future())
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(update)
        else:
            self._waiting[key] = [update]
            task = loop.create_task(self._run(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return update.answered

    async def _run(self, key: str) -> None:
        waiting = self._waiting[key]
        try:
            while waiting:
                now = waiting[:FOLD_CHANGES_MAX]
                try:
                    await self._make(key, now)
                except Exception as error:  # noqa: BLE001 - what befell them all
                    for update in now:
                        _answer(update, error)
                del waiting[: len(now)]
        finally:
            del self._waiting[key]
            for update in waiting:  # the event loop is being shut down
                update.answered.cancel()

    async def _make(self, key: str, updates: list[Update]) -> None:
        (before,) = await self._store.read((key,))
        while True:
            after, answers = _fold(key, before, updates)
            if any(isinstance(answer, bytes) for answer in answers):
                (outcome,) = await self._store.commit((Change(key, before, {key: after}),))
                if isinstance(outcome, Conflict):
                    before = outcome.current
                    continue
                if outcome is not None:
                    raise outcome
            break
        for update, answer in zip(updates, answers, strict=True):
            _answer(update, answer)


def _fold(
    key: str, data: bytes | None, updates: list[Update]
) -> tuple[bytes | None, list[bytes | Exception]]:
    """The text that the changes come to, and each one's own, or what it raised."""
    answers: list[bytes | Exception] = []
    for change, context, _ in updates:
        try:
            value = None if data is None else texts.decode(key, data)
            data = texts.encode(key, context.run(change, value))
            answers.append(data)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - its caller's
            answers.append(error)  # type: ignore[arg-type]
    return data, answers


def _answer(update: Update, answer: Any) -> None:
    answered = update.answered
    if answered.done():  # the caller was cancelled meanwhile
        return
    if isinstance(answer, BaseException):
        answered.set_exception(answer)
    else:
        answered.set_result(texts.decode("", answer))
