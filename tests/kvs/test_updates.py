"""Updates of one key from many tasks: made in order, written together, answered separately."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lo_kvs.kvs import (
    Change,
    Conflict,
    InMemoryKVS,
    Json,
    NotJSON,
    Outcome,
    Unavailable,
)

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


class Counted(InMemoryKVS):
    """Counts commits; others may write before each of them, or it may be refused."""

    def __init__(self, before: Callable[[int], bytes | None] = lambda _: None) -> None:
        super().__init__()
        self.commits = 0
        self.refused: Exception | None = None
        self._before = before

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self.commits += 1
        other = self._before(self.commits)
        if other is not None:
            await super().commit([Change("key", (await self.read(["key"]))[0], {"key": other})])
        if self.refused is not None:
            raise self.refused
        await asyncio.sleep(0)
        return await super().commit(changes)


def added(value: int) -> Callable[[Json], Json]:
    return lambda old: [*(old or []), value]  # type: ignore[misc]


def test_many_tasks_are_written_together() -> None:
    async def main() -> None:
        store = Counted()
        answers = await asyncio.gather(*(store.update("key", added(at)) for at in range(100)))
        # Each caller has the value as of its own change, and of its own.
        assert answers == [list(range(at + 1)) for at in range(100)]
        assert len({id(answer) for answer in answers}) == 100
        assert await store.get("key") == list(range(100))
        assert store.commits <= 2

    asyncio.run(main())


def test_failing_change_does_not_stop_the_others() -> None:
    def fail(_: Any) -> Any:
        raise LookupError("mine")

    async def main() -> None:
        store = Counted()
        changes: list[Callable[[Json], Json]] = [added(1), fail, lambda _: {1, 2}, added(2)]  # type: ignore[list-item, return-value]
        answers = await asyncio.gather(
            *(store.update("key", change) for change in changes), return_exceptions=True
        )
        assert answers[0] == [1]
        assert isinstance(answers[1], LookupError)
        assert isinstance(answers[2], NotJSON)
        assert answers[3] == [1, 2]
        # Nothing is written where all of them failed.
        commits = store.commits
        with pytest.raises(LookupError):
            await store.update("key", fail)
        assert store.commits == commits

    asyncio.run(main())


def test_all_are_made_again_on_what_others_wrote() -> None:
    async def main() -> None:
        store = Counted(lambda commit: b"[0]" if commit == 1 else None)
        answers = await asyncio.gather(*(store.update("key", added(at)) for at in (1, 2)))
        assert answers == [[0, 1], [0, 1, 2]]

    asyncio.run(main())


def test_unchanged_value_is_still_compared_with_the_store() -> None:
    async def main() -> None:
        store = Counted(lambda commit: b"2" if commit == 2 else None)
        await store.set("key", 1)
        assert await store.update("key", lambda old: old) == 2
        assert store.commits == 3

    asyncio.run(main())


def test_every_caller_gets_the_error_of_the_commit() -> None:
    async def main() -> None:
        store = Counted()
        store.refused = Unavailable("it is down")
        answers = await asyncio.gather(
            *(store.update("key", added(at)) for at in range(3)), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [Unavailable] * 3
        store.refused = None
        assert await store.update("key", added(1)) == [1]

    asyncio.run(main())


def test_cancelled_caller_does_not_affect_the_others() -> None:
    async def main() -> None:
        store = Counted()
        callers = [asyncio.create_task(store.update("key", added(at))) for at in range(3)]
        await asyncio.sleep(0)
        callers[0].cancel()
        callers[1].cancel()
        assert await callers[2] == [0, 1, 2]  # it may still be made, as every change may

    asyncio.run(main())


def test_changes_see_the_context_of_their_callers() -> None:
    async def one(store: Counted, who: str) -> Json:
        WHO.set(who)
        return await store.update("key", lambda old: [*(old or []), WHO.get()])  # type: ignore[no-any-return]

    async def main() -> None:
        store = Counted()
        await asyncio.gather(one(store, "first"), one(store, "second"))
        assert await store.get("key") == ["first", "second"]

    asyncio.run(main())


def test_closing_event_loop_leaves_no_caller_waiting() -> None:
    store = Counted()
    gate = asyncio.Event()

    async def main() -> None:
        async def wait(_: object, *, deadline: float | None = None) -> list[Outcome]:
            await gate.wait()
            return [Conflict(None)]

        store.commit = wait  # type: ignore[method-assign, assignment]
        asyncio.create_task(store.update("key", added(1)))  # noqa: RUF006 - it ends with the loop
        await asyncio.sleep(0.01)

    asyncio.run(main())
    del store.commit
    assert asyncio.run(store.update("key", added(2))) == [2]
