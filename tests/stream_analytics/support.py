"""What the tests of the reducers share: keys, sending events, and a store that waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from lo_kvs.kvs import Change, InMemoryKVS, Outcome, Store
from lo_kvs.kvs.batching.deadlines import RetryBudget
from lo_kvs.stream_analytics.helpers import KeyField, KeyStateType, make_key

T = TypeVar("T")
Event = dict[str, Any]

INTERNAL = KeyStateType.INTERNAL
EXTERNAL = KeyStateType.EXTERNAL
#: Long enough for a busy machine; only a test that fails ever waits for it.
PATIENCE_S = 20


class Run(Protocol):
    """Runs a scenario on an event loop of its own, with its store as `KVS()`."""

    def __call__(self, scenario: Callable[[Store], Coroutine[Any, Any, T]]) -> T: ...


def key_of(reducer: Any, state_type: KeyStateType = INTERNAL, student: str = "s1") -> str:
    return make_key(reducer, {KeyField.STUDENT: student}, state_type)


async def process_of(reducer: Any, student: str = "s1") -> Any:
    return await reducer({"auth": {"safe_user_id": student}})


async def send(reducer: Any, *events: Any, student: str = "s1") -> list[Any]:
    """Each event's External state, one event after another."""
    process = await process_of(reducer, student)
    return [await process(event, {}) for event in events]


async def send_at_once(reducer: Any, *events: Any, student: str = "s1") -> list[Any]:
    """Each event's External state or error, all submitted at the same time."""
    process = await process_of(reducer, student)
    waiting = asyncio.gather(*(process(event, {}) for event in events), return_exceptions=True)
    return list(await asyncio.wait_for(waiting, PATIENCE_S))


async def halves(store: Store, reducer: Any, student: str = "s1") -> list[Any]:
    """[Internal, External] as stored; "absent" for a missing half."""
    keys = [key_of(reducer, half, student) for half in (INTERNAL, EXTERNAL)]
    return await store.multiget(keys, "absent")


class GatedStore(Store):
    """A store whose reads and commits wait until its gate is open, and are recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = InMemoryKVS()
        self.gate = asyncio.Event()
        self.gate.set()
        self.reads: list[list[str]] = []
        self.commits: list[list[Change]] = []

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        self.reads.append(list(keys))
        await self.gate.wait()
        return await self.inner.read(keys)

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self.commits.append(list(changes))
        await self.gate.wait()
        return await self.inner.commit(changes)

    async def scan(
        self, prefix: str = "", *, budget: RetryBudget | None = None
    ) -> AsyncIterator[str]:
        async for key in self.inner.scan(prefix, budget=budget):
            yield key
