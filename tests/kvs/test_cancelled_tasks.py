"""All tasks of the event loop are cancelled, as in a graceful shutdown; the store keeps working."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.busy import late
from tests.kvs.batching.test_errors_deadlines import plus

from lo_kvs.kvs import (
    Change,
    FilesystemKVS,
    Guard,
    InMemoryKVS,
    KVSError,
    OutcomeUnknown,
    PersistentRedisKVS,
    Store,
)
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import ClusterServers, RedisServer

CALLS: dict[str, Callable[[Store, str], Awaitable[object]]] = {
    "get": lambda store, key: store.get(key),
    "set": lambda store, key: store.set(key, 1),
    "update": lambda store, key: store.update(key, lambda n: n),
    "multiset": lambda store, key: store.multiset({key: 1, f"{key} 2": 2}),
    "keys": lambda store, key: store.keys(),
}
#: Longer than any deadline here; only what waits forever takes as long.
FOREVER_S = 20


@pytest.fixture(params=["stub", "filesystem", "redis", "cluster"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    if request.param == "stub":
        return InMemoryKVS
    if request.param == "filesystem":
        return lambda: FilesystemKVS(tmp_path / "states", fsync=False)
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        where = RedisSettings(port=server.port, retry_for=2, timeout=1)
    else:
        cluster: ClusterServers = request.getfixturevalue("cluster")
        where = RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=2, timeout=1)
    return lambda: PersistentRedisKVS(prefix="c:", connection=where)


async def cancel_all() -> None:
    """Cancel each task but this one, and wait until they have ended."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("what", CALLS)
def test_store_works_after_all_its_tasks_were_cancelled(
    make_store: Callable[[], Store], what: str, warm: bool
) -> None:
    """At each step of a call; later calls of the same key and of others are answered."""

    async def main() -> None:
        for turns in range(9):
            store = make_store()
            if warm:
                await store.multiset({"a": 0, "b": 0})
                await store.get("a")
            calls = [asyncio.ensure_future(CALLS[what](store, key)) for key in "aab"]
            for _ in range(turns):
                await asyncio.sleep(0)
            await cancel_all()
            assert all(call.done() for call in calls)
            async with asyncio.timeout(FOREVER_S):
                for key in ("a", "b", "c"):
                    await store.set(key, 1)
                    assert await store.update(key, plus) == 2
                    assert await store.get(key) == 2
                await store.aclose()

    asyncio.run(main())


def test_callers_that_were_not_cancelled_are_answered(
    make_store: Callable[[], Store],
) -> None:
    """Their own wait is no task: only the tasks of the store are cancelled under them."""

    async def main() -> None:
        mine = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def strike(left: int, done: asyncio.Future[None]) -> None:
            if left:
                loop.call_soon(strike, left - 1, done)
                return
            for task in asyncio.all_tasks():
                if task is not mine:
                    task.cancel()
            done.set_result(None)

        for turns in range(9):
            store = make_store()
            struck = loop.create_future()
            strike(turns, struck)
            async with asyncio.timeout(FOREVER_S):
                try:
                    await store.update("a", plus)
                except KVSError as error:
                    assert "CancelledError" in str(error)  # noqa: PT017 - either is right
                await struck
                while len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - they take turns to end
                    await asyncio.sleep(0.01)
                await store.update("a", plus)
                await store.aclose()

    asyncio.run(main())


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield listener.getsockname()[1]


def test_program_ends_while_a_task_holds_a_store_of_a_silent_server(silent_port: int) -> None:
    where = RedisSettings(port=silent_port, retry_for=3, timeout=2)

    async def background() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.set("heartbeat", 1)

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(background())
        await asyncio.sleep(0.1)
        return task

    start = time.monotonic()
    assert asyncio.run(main()).cancelled()
    assert time.monotonic() - start < late(3.5)


def test_what_was_sent_is_unknown_when_its_task_is_cancelled(silent_port: int) -> None:
    """What waits behind it was not sent, and says so."""

    async def main() -> None:
        store = PersistentRedisKVS(connection=RedisSettings(port=silent_port, retry_for=3))
        first = asyncio.ensure_future(store.set("a", 1))
        await asyncio.sleep(0.05)
        mine = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task not in {mine, first}:
                task.cancel()
        with pytest.raises(KVSError, match="This call was not sent") as unsent:
            await first  # the server has not even greeted
        assert not isinstance(unsent.value, OutcomeUnknown)
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_ctrl_c_within_a_callback_ends_the_program(
    make_store: Callable[[], Store], stop: type[BaseException], warm: bool
) -> None:
    """The others that are answered with it get their answers, and the store closes."""
    struck: list[object] = []

    def strike(outcome: object) -> None:
        struck.append(outcome)
        raise stop

    async def main() -> None:
        async with make_store() as store:
            if warm:
                await store.set("a", 0)
            change = Change("a", Guard.ANY, {"a": b"1"})
            store.submit(change, strike)
            store.submit(change, struck.append)
            await asyncio.gather(*(store.set(key, 1) for key in "abc"))

    start = time.monotonic()
    with pytest.raises(stop):
        asyncio.run(main())
    assert time.monotonic() - start < FOREVER_S
    assert struck[0] is None
    assert len(struck) == 2  # by an answer, or an error
