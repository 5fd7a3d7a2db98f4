"""Connections that are cut, silent, or bring too little: the errors that callers get."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from tests import busy
from tests.faults.counting import KEYS, count_through_proxy, count_while, kind_of
from tests.faults.tally import Tally
from tests.faults.worker import fault_count, metadata_of, one_more
from tests.faults.workers import tell

from lo_kvs.kvs import (
    KVSError,
    OutcomeUnknown,
    PersistentRedisKVS,
    Store,
    Unavailable,
)
from lo_kvs.kvs.redis.protocol.commit_script import COMMIT
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.engine.engine import Engine
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

OLD = 7
RETRY_FOR_S = 0.6
#: Shorter than the deadline, so that a silent connection is given up; and longer.
TIMEOUTS_S = (0.2, 5.0)
LATE_S = 0.5
AT_ONCE = 20
KILLED = 300
#: All that no connection survives; STALL holds a request longer than the deadline here.
DEADLY = [fault for fault in Fault if fault is not Fault.DRIP]
STALL_S = 1.2


async def count_event(store: Store, key: str) -> Any:
    keyed: Any = fault_count.__dict__["_kvs_keyed"]
    return await Engine(store).process(keyed.reducer, keyed.keys(metadata_of(key), {}), "event")


@dataclass(frozen=True)
class Call:
    """A call, what it returns where `OLD` stands under its key, and what stands there then."""

    run: Callable[[Store, str], Awaitable[Any]]
    returns: Any
    leaves: Any


CALLS = {
    "get": Call(lambda store, key: store.get(key), OLD, OLD),
    "set": Call(lambda store, key: store.set(key, OLD + 1), None, OLD + 1),
    "update": Call(lambda store, key: store.update(key, one_more), OLD + 1, OLD + 1),
    "remove": Call(lambda store, key: store.remove(key), True, None),
    "keys": Call(lambda store, key: store.keys(key), ["key"], OLD),
    "event": Call(count_event, 1, OLD),
}


def settings_for(port: int, *, timeout: float, retry_for: float = RETRY_FOR_S) -> RedisSettings:
    return RedisSettings(host="127.0.0.1", port=port, timeout=timeout, retry_for=retry_for)


async def result_of(store: Store, name: str, key: str) -> tuple[str, float]:
    """The result of a call ("done", or the name of a typed error), and its duration."""
    clock = asyncio.get_running_loop().time
    start = clock()
    try:
        returned = await CALLS[name].run(store, key)
    except KVSError as error:
        answer = kind_of(error)
    else:
        answer = "done"
        assert returned == ([key] if name == "keys" else CALLS[name].returns)
    return answer, clock() - start


def is_commit(request: bytes) -> bool:
    return COMMIT.digest.encode() in request or COMMIT.text in request


def is_read(request: bytes) -> bool:
    return b"MGET" in request or b"SCAN" in request


class Trial:
    """One call after another, each through a proxy and a store of its own."""

    def __init__(self, server: RedisServer, client: redis.Redis) -> None:
        self._server = server
        self._raw = client
        self._names = (f"key {number}." for number in itertools.count())
        self.results: Counter[str] = Counter()

    async def through(self, fault: Fault, name: str, seconds: float, *, handshake: bool) -> None:
        """Strike every request; or, without the greeting, the scripts that the call is about.

        seconds  the time-out of the connection
        """
        key = next(self._names)
        self._raw.set(key, OLD)
        changes = CALLS[name].leaves != OLD or name == "event"
        what = f"{fault}, {name}, timeout {seconds} s, {handshake=}"
        async with FaultProxy(
            "127.0.0.1",
            self._server.port,
            faults={fault: 1.0},
            only=None if handshake else is_commit if changes else is_read,
            stall_s=STALL_S,
        ) as proxy:
            where = settings_for(proxy.port, timeout=seconds)
            async with PersistentRedisKVS(connection=where) as store:
                answer, took = await result_of(store, name, key)
                assert took < RETRY_FOR_S + busy.late(LATE_S), (
                    f"{what}: {answer} after {took:.2f} s"
                )
                assert answer == (
                    "OutcomeUnknown" if changes and not handshake else "Unavailable"
                ), what
                proxy.faults_on = False
                await self._still_works(store, key, name, answer, what)
        self.results[answer] += 1

    async def _still_works(self, store: Store, key: str, name: str, answer: str, what: str) -> None:
        # What was sent under an older number is refused from now on, however late it comes.
        left: Any = await store.update(key, lambda value: value)
        expected = [OLD] if answer == "Unavailable" else [OLD, CALLS[name].leaves]
        assert left in expected, what
        assert await store.multiget([key, key]) == [left, left], what
        assert await store.update(key, one_more) == (left or 0) + 1, what


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_only_errors_of_ours_within_the_deadline(
    redis_server: RedisServer, client: redis.Redis, tally: Tally
) -> None:
    trial = Trial(redis_server, client)

    async def main() -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(fault: Fault, name: str, seconds: float, handshake: bool) -> None:
            async with gate:
                await trial.through(fault, name, seconds, handshake=handshake)

        async with asyncio.TaskGroup() as group:
            for each in itertools.product(DEADLY, CALLS, TIMEOUTS_S, (True, False)):
                group.create_task(one(*each))

    start = time.monotonic()
    asyncio.run(main())
    tell(f"{dict(trial.results)}, {time.monotonic() - start:.1f} s")
    tally("T7", trial.results.total(), f"{dict(trial.results)}, on time; then at work again")


def test_bytes_that_come_one_by_one_are_read_whole(
    redis_server: RedisServer, client: redis.Redis, tally: Tally
) -> None:
    async def main() -> int:
        async with FaultProxy("127.0.0.1", redis_server.port, faults={Fault.DRIP: 1.0}) as proxy:
            where = settings_for(proxy.port, timeout=5, retry_for=20)
            async with PersistentRedisKVS(connection=where) as store:

                async def one(name: str) -> None:
                    client.set(name, OLD)
                    answer, _ = await result_of(store, name, name)
                    assert answer == "done", name
                    if CALLS[name].leaves is not None:
                        assert await store.get(name) == CALLS[name].leaves

                await asyncio.gather(*(one(name) for name in CALLS))
            return proxy.counts.total()

    tally("T7", asyncio.run(main()), "dripped, every reply read whole")


@contextmanager
def never_accepting() -> Iterator[int]:
    """A port whose queue is full: nothing there answers, not even the kernel."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting: list[socket.socket] = []
        try:
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listener.getsockname())
            time.sleep(0.05)
            yield listener.getsockname()[1]
        finally:
            for each in waiting:
                each.close()


def test_port_that_does_not_accept(
    redis_server: RedisServer, client: redis.Redis, tally: Tally
) -> None:
    async def main() -> None:
        for timeout in TIMEOUTS_S:
            with never_accepting() as port:
                stores = {
                    name: PersistentRedisKVS(connection=settings_for(port, timeout=timeout))
                    for name in CALLS
                }
                for name in CALLS:
                    client.set(f"key {name}", OLD)
                all_results = await asyncio.gather(
                    *(result_of(store, name, f"key {name}") for name, store in stores.items())
                )
            for (answer, took), name in zip(all_results, CALLS, strict=True):
                assert answer == "Unavailable", name
                assert took < RETRY_FOR_S + busy.late(LATE_S), name
            async with FaultProxy("127.0.0.1", redis_server.port, port=port):
                for name, store in stores.items():
                    async with store:
                        assert await store.update(f"key {name}", one_more) == OLD + 1

    asyncio.run(main())
    tally("T7", len(TIMEOUTS_S) * len(CALLS), "port full, nobody accepts: errors on time")


def test_callers_during_an_outage_also_get_an_error(
    redis_server: RedisServer, redis_url: str
) -> None:
    """A call that waits for the group under way has its deadline from when it was handed in."""

    async def main() -> None:
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults={Fault.BLACK_HOLE: 1.0}
        ) as proxy:
            where = settings_for(proxy.port, timeout=0.2)
            async with PersistentRedisKVS(connection=where) as store:

                async def late(number: int) -> tuple[str, float]:
                    await asyncio.sleep(number * 0.05)
                    return await result_of(store, "get" if number % 2 else "set", f"key {number}")

                for answer, took in await asyncio.gather(*(late(number) for number in range(20))):
                    assert answer == "Unavailable"
                    assert took < RETRY_FOR_S + busy.late(LATE_S)
                proxy.faults_on = False
                await store.set("key", 1)

    asyncio.run(main())


def test_killed_clients_change_no_count(
    redis_server: RedisServer, client: redis.Redis, seed: int, tally: Tally
) -> None:
    drawn = random.Random(seed)
    killed = 0

    def kill_all() -> None:
        nonlocal killed
        while killed < KILLED:
            time.sleep(drawn.uniform(0.001, 0.02))
            killed += int(client.client_kill_filter(_type="normal", skipme=True))

    start = time.monotonic()
    run = count_while(kill_all, redis_server, processes=3)
    tell(f"seed {seed}: {killed} killed, {time.monotonic() - start:.1f} s, {run}")
    assert run.errors == {}
    assert all(run.acknowledged[key] > 10 for key in KEYS)
    assert run.stored == run.acknowledged
    tally("T7", killed, f"CLIENT KILL: {run.acknowledged.total():,} events exact (seed {seed})")


#: Here every request may be struck, those of a connection's greeting as well.
EVERYWHERE = {
    Fault.RESET: 0.05,
    Fault.BLACK_HOLE: 0.01,
    Fault.HALF_CLOSE: 0.05,
    Fault.CUT_REPLY: 0.05,
    Fault.DRIP: 0.05,
}


def test_hostile_network_changes_no_count(
    redis_server: RedisServer, redis_url: str, seed: int, tally: Tally
) -> None:
    run = count_through_proxy(redis_server, seed=seed, faults=200, kinds=EVERYWHERE, processes=3)
    assert run.errors == {}
    assert all(run.acknowledged[key] > 10 for key in KEYS)
    assert run.stored == run.acknowledged
    total = run.acknowledged.total()
    tally("T7", run.faults.total(), f"greetings as well: {total:,} events exact (seed {seed})")


def test_killed_clients_within_a_short_deadline(
    redis_server: RedisServer, client: redis.Redis, seed: int
) -> None:
    """Where a deadline passes, what is stored lies between "done" and "done or unknown"."""
    drawn = random.Random(seed)

    async def main() -> tuple[Counter[str], int]:
        where = settings_for(redis_server.port, timeout=0.2, retry_for=0.1)
        answers: Counter[str] = Counter()
        end = asyncio.get_running_loop().time() + 3
        async with PersistentRedisKVS(connection=where) as store:

            async def count() -> None:
                while asyncio.get_running_loop().time() < end:
                    try:
                        await store.update("counter", one_more)
                    except KVSError as error:
                        answers[kind_of(error)] += 1
                    else:
                        answers["done"] += 1

            async def kill() -> None:
                while asyncio.get_running_loop().time() < end:
                    client.client_kill_filter(_type="normal", skipme=True)
                    await asyncio.sleep(drawn.uniform(0, 0.004))

            await asyncio.gather(kill(), *(count() for _ in range(4)))
            while True:
                try:
                    return answers, await store.get("counter")
                except Unavailable:
                    assert asyncio.get_running_loop().time() < end + 10

    answers, stored = asyncio.run(main())
    tell(f"seed {seed}: {dict(answers)}, {stored} stored")
    assert {*answers} <= {"done", "Unavailable", OutcomeUnknown.__name__}
    assert answers["done"] > 5
    assert answers["done"] <= stored <= answers["done"] + answers["OutcomeUnknown"]
