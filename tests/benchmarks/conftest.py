"""Stores that break the promise, and the setting that rows run in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from benchmarks.setting import Setting

from lo_kvs.kvs import Change, Conflict, Outcome, PersistentRedisKVS
from lo_kvs.kvs.backend import Submit
from lo_kvs.measure.report import Result

#: A commit that is interfered with: each so many, so that it happens in the smallest run.
EVERY = 20


class LosingStore(PersistentRedisKVS):
    """Says of every twentieth change that it was made, and does not make it."""

    changes = 0

    def submitter_for(self, guard: str) -> Submit:
        submit = super().submitter_for(guard)

        def lose(
            change: Change, done: Callable[[Outcome], object], deadline: float | None = None
        ) -> None:
            LosingStore.changes += 1
            if LosingStore.changes % EVERY == 0:
                asyncio.get_running_loop().call_soon(done, None)
            else:
                submit(change, done, deadline)

        return lose


class DoublingStore(PersistentRedisKVS):
    """Makes every twentieth change and calls it a conflict: its events are applied again."""

    changes = 0

    def submitter_for(self, guard: str) -> Submit:
        submit = super().submitter_for(guard)

        def double(
            change: Change, done: Callable[[Outcome], object], deadline: float | None = None
        ) -> None:
            DoublingStore.changes += 1
            lies = DoublingStore.changes % EVERY == 0 and change.puts.get(change.guard) is not None

            def answered(outcome: Outcome) -> None:
                if outcome is None and lies:
                    done(Conflict(change.puts[change.guard]))
                else:
                    done(outcome)

            submit(change, answered, deadline)

        return double


Row: TypeAlias = Callable[[Setting], Any]
RunRow: TypeAlias = Callable[..., Result]


@pytest.fixture
def run_row() -> RunRow:
    """Runs a row in quick mode, on a server of its own."""

    def run(row: Row, **options: Any) -> Result:
        async def running() -> Result:
            async with Setting.opened(quick=True, **options) as setting:
                result: Result = await row(setting)
                return result

        return asyncio.run(running())

    return run


@pytest.fixture
def stores() -> dict[str, type[PersistentRedisKVS]]:
    """The stores that break the promise, by name."""
    return {store.__name__: store for store in (LosingStore, DoublingStore)}
