"""Backend: the interface that each store implements: read, commit and scan bytes, with deadlines.

`Store` adds the methods for users on top of it. A store implements `read`, `commit` and `scan`;
it can override the other methods with faster ones.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, Protocol, Self

from lo_kvs.kvs.batching.batcher import Batcher
from lo_kvs.kvs.batching.deadlines import Deadline, RetryBudget
from lo_kvs.kvs.changes import Change, Outcome, check_changes, check_deadline
from lo_kvs.kvs.errors import InvalidArgument, KVSError, OutcomeUnknown, StoreClosed
from lo_kvs.kvs.loop_bound import of_this_loop

logger = logging.getLogger(__name__)

#: The maximum number of keys that one call reads or writes.
GROUP_KEYS_MAX: Final = 500


class Submit(Protocol):
    """Puts a change into the next group, and calls `done` with its outcome."""

    def __call__(
        self,
        change: Change,
        done: Callable[[Outcome], object],
        deadline: float | None = None,
        /,
    ) -> None:
        """Make `change`, then call `done(outcome)`. For `deadline`, see `commit`."""


class Backend(abc.ABC):
    """Keys and bytes: the common interface of all stores, below their JSON values."""

    def __init__(self) -> None:
        self._closed = False
        self._batchers: dict[asyncio.AbstractEventLoop, Batcher[Change, Outcome]] = {}

    @abc.abstractmethod
    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        """The stored bytes of each key, in the order of `keys`; `None` if absent.

        If the store does not answer, the call is retried until `deadline` (in the event loop's
        time), but for at least 0.25 s. Default and maximum: as the store's settings say. Stores
        that never wait ignore the deadline.
        """

    @abc.abstractmethod
    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        """Make each change atomically; return the outcomes in the order of `changes`.

        The changes of one call are independent of each other. A change of several keys is
        atomic, also in a crash. Raises `InvalidKey` and `InvalidArgument` before any I/O; every
        other failure is the outcome of the changes that it affects. For `deadline`, see `read`;
        a change that could not be sent by then has the outcome `Unavailable`.
        """

    def submit(
        self,
        change: Change,
        done: Callable[[Outcome], object],
        deadline: float | None = None,
    ) -> None:
        """Make `change` with the next group, then call `done(outcome)`.

        For callers with many changes in flight: it needs no task and no future. Changes of one
        guard key are made in the order in which they were submitted. Raises `InvalidKey`,
        `InvalidArgument` and `StoreClosed`; every other failure is the outcome. For `deadline`,
        see `commit`; changes with very different deadlines do not share a group.
        """
        self._check_open()
        check_deadline(deadline)
        if not callable(done):
            raise InvalidArgument(f"`done` must be callable, got {type(done).__name__}")
        (checked,) = check_changes((change,))
        self.submitter_for(checked.guard)(checked, done, deadline)

    def submitter_for(self, guard: str) -> Submit:
        """`submit` for the changes of one guard key, on the running event loop only.

        It skips the checks: which loop is running, and whether the keys are valid. Both this
        method and the returned function raise `StoreClosed`.
        """
        self._check_open()
        return of_this_loop(self._batchers, lambda: Batcher(self._carry, GROUP_KEYS_MAX)).submit

    def new_deadline(self, since: float | None = None) -> Deadline:
        """The deadline of a call of several steps that started at `since`; default: now."""
        return Deadline(self.try_for_s(), since)

    def retry_budget(self) -> RetryBudget:
        """The limit for the failed attempts of all steps of one call that starts now.

        It is as long as the deadline of a single-step call. Run each step in `with
        budget.step(store.failed_attempts) as deadline:`, and pass that deadline to `read` or
        `commit`; `scan` takes the budget itself.
        """
        return RetryBudget(self.try_for_s())

    def try_for_s(self) -> float | None:
        """How many seconds a change is retried; `None`: the store never waits."""
        return None

    def failed_attempts(self) -> int:
        """The number of failed attempts to reach the store so far, on this event loop.

        If it grew while a call was queued, the call waited because of failures; otherwise because
        of other work.
        """
        return 0

    def fails_as_a_whole(self) -> bool:
        """Whether one call that cannot reach the store means that no other call can.

        A single server does. A cluster does not: the other nodes may still answer.
        """
        return False

    @abc.abstractmethod
    def scan(self, prefix: str = "", *, budget: RetryBudget | None = None) -> AsyncIterator[str]:
        """Iterate over the keys that start with `prefix`, each once, in no particular order.

        budget  the budget of the call that this is a step of; default: a new one. Stores that
                never wait ignore it
        """

    async def aclose(self) -> None:
        """Close the store after everything that was submitted on this event loop has its outcome.

        Later calls raise `StoreClosed`. Closing twice is allowed.
        """
        batcher = self._batchers.get(asyncio.get_running_loop())
        if batcher is not None:
            await batcher.idle()
        self._closed = True
        while self._batchers:
            self._batchers.popitem()[1].close(self._closed_text())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed(self._closed_text())

    def _closed_text(self) -> str:
        return f"this {type(self).__name__} was closed; ask the router for a new one"

    async def _carry(self, changes: list[Change]) -> Sequence[Outcome]:
        try:
            return await self.commit(changes)
        except KVSError as error:  # the store was closed meanwhile
            return [error] * len(changes)
        except Exception as error:
            logger.exception("a commit failed")
            return [OutcomeUnknown(f"a commit failed: {error!r}")] * len(changes)
