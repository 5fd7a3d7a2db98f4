"""Many writers of one state: in one event loop, in several, and in several processes.

The reducer shows the count as of its event. So N events that all are counted show each
number from 1 to N once, however they were interleaved; nothing less than that is asked for.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.stream_analytics.support import (
    EXTERNAL,
    INTERNAL,
    PATIENCE_S,
    Run,
    halves,
    key_of,
    send,
)
from tests.stream_analytics.writer import EVENTS, TASKS, send_all, shared_count

from lo_kvs.kvs import KVS, InMemoryKVS, Store
from lo_kvs.stream_analytics.helpers import kvs_pipeline

ROOT = Path(__file__).parents[3]
TOTAL = TASKS * EVENTS


async def stored_count(store: Store) -> list[Any]:
    async with store:
        return await halves(store, shared_count)


def test_tasks_of_one_event_loop(run: Run) -> None:
    async def scenario(store: Store) -> None:
        async def one_after_another() -> list[int]:
            return [count for _ in range(EVENTS) for count in await send(shared_count, "event")]

        results = await asyncio.gather(*(one_after_another() for _ in range(TASKS)))
        counts = [count for part in results for count in part]
        assert sorted(counts) == list(range(1, TOTAL + 1))
        assert all(part == sorted(part) for part in results)
        assert await halves(store, shared_count) == [{"count": TOTAL}, TOTAL]

    run(scenario)


class Shared(InMemoryKVS):
    """A stub that outlives the event loop that closes it."""

    async def aclose(self) -> None:
        pass


def test_two_event_loops_in_threads(
    request: pytest.FixtureRequest, open_store: Callable[[], Store]
) -> None:
    shared = Shared() if isinstance(open_store(), InMemoryKVS) else None
    together = threading.Barrier(2, timeout=PATIENCE_S)
    own = threading.local()
    KVS.add_item("default", lambda: own.store)
    counts: list[int] = []

    def one_loop() -> None:
        own.store = shared or open_store()
        together.wait()
        counts.extend(asyncio.run(send_all(own.store)))

    threads = [threading.Thread(target=one_loop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(counts) == list(range(1, 2 * TOTAL + 1))
    assert asyncio.run(stored_count(shared or open_store())) == [{"count": 2 * TOTAL}, 2 * TOTAL]


@pytest.mark.parametrize("kind", ["filesystem", "redis"])
def test_two_processes(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    place = request.getfixturevalue("redis_url") if kind == "redis" else str(tmp_path)
    command = [sys.executable, "-m", "tests.stream_analytics.writer", kind, place]
    processes = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        parts = [json.loads(process.communicate(timeout=PATIENCE_S)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sorted(parts[0] + parts[1]) == list(range(1, 2 * TOTAL + 1))
    # They did meet: otherwise this test would have proven nothing.
    assert max(parts[0]) > min(parts[1])
    assert max(parts[1]) > min(parts[0])


def test_both_halves_are_always_from_the_same_event(run: Run) -> None:
    """A reader never sees an External state without its Internal one, or the reverse."""

    @kvs_pipeline(null_state=0)
    async def count(event: Any, state: Any) -> tuple[Any, Any]:
        return state + 1, state + 1

    async def scenario(store: Store) -> None:
        done = False

        async def look() -> int:
            looks = 0
            while not done or not looks:
                # External is read first: it may be the older one, but never the newer.
                shown = await store.get(key_of(count, EXTERNAL), 0)
                assert await store.get(key_of(count, INTERNAL), 0) >= shown
                looks += 1
                await asyncio.sleep(0)  # the stub answers at once
            return looks

        looking = asyncio.create_task(look())
        await send(count, *range(100))
        done = True
        await looking
        assert await halves(store, count) == [100, 100]

    run(scenario)


def test_many_event_loops_one_after_another(open_store: Callable[[], Store]) -> None:
    """Each process of a short command has a loop of its own; a test run has hundreds."""
    if isinstance(open_store(), InMemoryKVS):
        store = Shared()
        open_again: Callable[[], Store] = lambda: store  # noqa: E731 - as open_store is one
    else:
        open_again = open_store

    async def one_event() -> list[Any]:
        async with open_again() as opened:
            KVS.add_item("default", opened)
            return await send(shared_count, "event")

    assert [asyncio.run(one_event()) for _ in range(20)] == [[n] for n in range(1, 21)]


def test_two_event_loops_share_a_router_of_one_store() -> None:
    """Loops begin and end while others work."""
    KVS.add_item("default", InMemoryKVS())
    counts: list[list[int]] = []

    def many_loops() -> None:
        counts.extend(asyncio.run(send(shared_count, "a", "b")) for _ in range(60))

    threads = [threading.Thread(target=many_loops) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    finally:
        sys.setswitchinterval(interval)
    assert sorted(count for part in counts for count in part) == list(range(1, 481))
