"""What each store brings: reading and committing bytes, in groups, and how long that is tried.

`Store` has what people call, on top of this. A store brings `read`, `commit` and `scan`; the
rest is here, and a store that does better replaces it.
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

#: How many keys one call reads or writes where a caller names many.
GROUP_KEYS_MAX: Final = 500


class Submit(Protocol):
    """What takes a change into the group that leaves next, and is told its outcome."""

    def __call__(
        self,
        change: Change,
        done: Callable[[Outcome], object],
        deadline: float | None = None,
        /,
    ) -> None:
        """Make `change`; `done(outcome)` is called then. The deadline is as in `commit`."""


class Backend(abc.ABC):
    """Bytes under keys: what all stores have in common below their JSON values."""

    def __init__(self) -> None:
        self._closed = False
        self._lanes: dict[asyncio.AbstractEventLoop, Batcher[Change, Outcome]] = {}

    @abc.abstractmethod
    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        """The stored bytes of each key, in the order of `keys`; `None` where absent.

        A store that does not answer is tried until the `deadline`, in the event loop's time,
        and for a quarter of a second at least; default, and the latest: for as long as the
        store's settings say. Stores that wait for nobody take a deadline and heed none.
        """

    @abc.abstractmethod
    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        """Make each change whole or not at all; the outcomes stand in the changes' order.

        The changes of one call are independent of each other. A change that names several
        keys is all or nothing, also in a crash. Raises `InvalidKey` and `InvalidArgument` before
        any I/O; every other failure is the outcome of the changes that it concerns. The
        deadline is as in `read`; what could not be sent by then is `Unavailable`.
        """

    def submit(
        self,
        change: Change,
        done: Callable[[Outcome], object],
        deadline: float | None = None,
    ) -> None:
        """Make `change` with the group that leaves next; `done(outcome)` is called then.

        For callers with many changes under way at once: it costs no task and no future.
        Changes of one guard key are made in the order in which they were submitted. Raises
        `InvalidKey`, `InvalidArgument` and `StoreClosed`; everything else is the outcome. The
        deadline is as in `commit`; changes whose deadlines differ much do not leave together.
        """
        self._check_open()
        check_deadline(deadline)
        if not callable(done):
            raise InvalidArgument(f"`done` must be callable, got {type(done).__name__}")
        (checked,) = check_changes((change,))
        self.submitter_for(checked.guard)(checked, done, deadline)

    def submitter_for(self, guard: str) -> Submit:
        """`submit` for the changes of one guard key, on the running event loop only.

        It asks nothing again: neither which loop runs nor whether the keys can be keys.
        Raises `StoreClosed`, then and now.
        """
        self._check_open()
        return of_this_loop(self._lanes, lambda: Batcher(self._carry, GROUP_KEYS_MAX)).submit

    def new_deadline(self, since: float | None = None) -> Deadline:
        """How long a call of several steps is tried that was made then; default: now."""
        return Deadline(self.try_for_s(), since)

    def retry_budget(self) -> RetryBudget:
        """How long the parts of one call, made now, may be tried in vain, all together.

        As long as a call of one part is. Make each part in `with budget.step(store.in_vain) as
        deadline:`, with that deadline for `read` or `commit`; `scan` takes the budget itself.
        """
        return RetryBudget(self.try_for_s())

    def try_for_s(self) -> float | None:
        """How many seconds a change is tried for; `None`: the store waits for nobody."""
        return None

    def failed_attempts(self) -> int:
        """How many attempts to reach the store were in vain so far, on this event loop.

        Whoever has waited while that grew did so because of trouble; else there was much to do.
        """
        return 0

    @abc.abstractmethod
    def scan(self, prefix: str = "", *, budget: RetryBudget | None = None) -> AsyncIterator[str]:
        """Iterate over the keys that begin with `prefix`: each once, in no order.

        budget  that of the call of which this is a part; default: this is a call by itself.
                Stores that wait for nobody heed none
        """

    async def aclose(self) -> None:
        """Close the store, once what was submitted on this event loop has its outcome.

        Calls after that raise `StoreClosed`; closing twice is fine.
        """
        lane = self._lanes.get(asyncio.get_running_loop())
        if lane is not None:
            await lane.idle()
        self._closed = True
        while self._lanes:
            self._lanes.popitem()[1].close(self._closed_text())

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
