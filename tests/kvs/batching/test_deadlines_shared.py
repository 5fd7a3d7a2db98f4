"""Calls with several steps, and queued calls, have one deadline for all of their time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from tests.busy import late
from tests.kvs.batching.test_errors_deadlines import (
    GRACE,
    RETRY_FOR,
    Results,
    fault_of,
    plus,
    stopped,
    times_of,
)
from tests.kvs.redis_places import settings_for

from lo_kvs.kvs import (
    Change,
    Guard,
    InMemoryKVS,
    KVSError,
    Outcome,
    OutcomeUnknown,
    PersistentRedisKVS,
    TimedOut,
    Unavailable,
)
from lo_kvs.kvs.redis.protocol.commit_script import COMMIT
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

PATIENT = 1.6  # long enough for something else to happen within it
LATE = 1.2  # the time by which it has happened


def is_commit(request: bytes) -> bool:
    return COMMIT.digest.encode() in request


def is_read(request: bytes) -> bool:
    return b"MGET" in request


def is_scan_or_read(request: bytes) -> bool:
    return b"SCAN" in request or is_read(request)


def is_scan_or_commit(request: bytes) -> bool:
    return b"SCAN" in request or is_commit(request)


@contextlib.asynccontextmanager
async def late_reads_and_lost_commits(server: RedisServer) -> AsyncIterator[int]:
    """The port of a server that answers reads late and commits not at all."""
    async with (
        FaultProxy(
            "127.0.0.1", server.port, faults={Fault.STALL: 1.0}, only=is_read, stall_s=LATE
        ) as late,
        FaultProxy("127.0.0.1", late.port, faults={Fault.BLACK_HOLE: 1.0}, only=is_commit) as lost,
    ):
        yield lost.port


async def took(call: Awaitable[object]) -> tuple[float, object]:
    """The duration of a call, and its result or error."""
    start = time.monotonic()
    try:
        answer = await call
    except KVSError as error:
        answer = error
    return time.monotonic() - start, answer


@pytest.mark.parametrize("name", ["update", "remove"])
def test_reading_and_writing_share_a_deadline(redis_server: RedisServer, name: str) -> None:
    async def main() -> None:
        async with PersistentRedisKVS(connection=settings_for(redis_server.port)) as other:
            await other.set("key", 1)
        async with late_reads_and_lost_commits(redis_server) as port:
            where = settings_for(port, retry_for=PATIENT, timeout=5)
            async with PersistentRedisKVS(connection=where) as store:
                call = store.remove("key") if name == "remove" else store.update("key", plus)
                seconds, error = await took(call)
        assert isinstance(error, OutcomeUnknown)
        assert PATIENT - 0.1 < seconds < PATIENT + late(GRACE)

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [0.3, 5.0], ids=["many tries", "one try"])
@pytest.mark.parametrize("silent", ["all", "commits"])
def test_updates_of_one_key_each_fail_in_time(
    redis_server: RedisServer, silent: str, timeout: float
) -> None:
    """Updates keep arriving while the store is unavailable, and queue behind each other."""
    lost = is_commit if silent == "commits" else None

    async def main() -> None:
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults={Fault.SWALLOW_STALL: 1.0}, only=lost
        ) as proxy:
            proxy.faults_on = False
            where = settings_for(proxy.port, retry_for=PATIENT, timeout=timeout)
            async with PersistentRedisKVS(connection=where) as store:
                await store.set("key", 0)
                proxy.faults_on = True
                results = await times_of(lambda _: store.update("key", plus), calls=60, every=0.06)
                proxy.faults_on = False
                check(results)
                # Unavailable means that nothing was sent.
                unknown = sum(error is OutcomeUnknown for _, error in results)
                assert (unknown > 0) == (silent == "commits")
                assert await store["key"] <= unknown
                before = await store["key"]
                assert await store.update("key", plus) == before + 1

    def check(results: Results) -> None:
        assert len(results) == 60
        for seconds, error in results:
            assert issubclass(error, Unavailable | OutcomeUnknown)
            assert PATIENT / 2 < seconds < PATIENT + late(GRACE)

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [0.3, 5.0], ids=["many tries", "one try"])
@pytest.mark.parametrize("removing", [True, False], ids=["removals too", "without removals"])
def test_calls_of_several_kinds_each_fail_in_time(
    redis_server: RedisServer, removing: bool, timeout: float
) -> None:
    """Steps of calls that started at different times share the same connections."""

    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=PATIENT, timeout=timeout)
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset({f"key {n}": 0 for n in range(60)})
            calls: list[Callable[[int], Awaitable[object]]] = [
                lambda n: store.set(f"key {n}", 1),
                lambda n: store.update(f"key {n % 3}", plus),
                lambda n: store.remove(f"key {n}") if removing else store.set(f"key {n}", 1),
                lambda n: store.update(f"key {n % 3}", plus),
            ]
            with stopped(redis_server):
                results = await times_of(lambda n: calls[n % 4](n), calls=60, every=0.06)
            assert type(None) not in {error for _, error in results}
            assert min(results)[0] > PATIENT / 2
            assert max(results)[0] < PATIENT + late(GRACE)
            assert await store.update("after", lambda _: 2) == 2

    asyncio.run(main())


def test_queued_updates_have_no_deadline_while_the_server_answers(
    redis_server: RedisServer,
) -> None:
    """A slow server and more work than fits into one deadline: every call is served."""
    every = 0.15

    async def main() -> None:
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults={Fault.STALL: 1.0}, stall_s=every
        ) as proxy:
            where = settings_for(proxy.port, retry_for=RETRY_FOR)
            async with PersistentRedisKVS(connection=where) as store:
                await store.set("many", 0)
                seconds, _ = await took(
                    asyncio.gather(*(store.update("many", plus) for _ in range(1_500)))
                )
                assert await store["many"] == 1_500
        assert seconds > RETRY_FOR + GRACE

    asyncio.run(main())


def test_queued_calls_have_no_deadline_while_the_server_answers(
    redis_server: RedisServer,
) -> None:
    async def main() -> None:
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults={Fault.STALL: 1.0}, stall_s=0.25
        ) as proxy:
            where = settings_for(proxy.port, retry_for=RETRY_FOR)
            async with PersistentRedisKVS(connection=where, lanes=1) as store:
                keys = [f"key {n}" for n in range(3_000)]
                changes = [Change(key, Guard.ANY, {key: b"1"}) for key in keys]
                seconds, outcomes = await took(store.commit(changes))
                assert outcomes == [None] * len(keys)
                assert seconds > RETRY_FOR + GRACE
                seconds, found = await took(store.read(keys))
                assert found == [b"1"] * len(keys)
                assert seconds > RETRY_FOR + GRACE

    asyncio.run(main())


# -- explicit deadlines --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["commit", "read"])
def test_explicit_deadline_behind_calls_with_later_deadlines(
    redis_server: RedisServer, kind: str
) -> None:
    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=PATIENT, timeout=5)
        async with PersistentRedisKVS(connection=where, lanes=1) as store:
            await store.multiset({"key": 0, "own": 0})
            clock = asyncio.get_running_loop().time

            def call(key: str, deadline: float | None = None) -> Awaitable[object]:
                if kind == "read":
                    return store.read([key], deadline=deadline)
                return outcome_of(store, key, deadline)

            with stopped(redis_server):
                first = asyncio.create_task(took(call("key")))
                await asyncio.sleep(0.1)
                others = [asyncio.create_task(took(call("other"))) for _ in range(3)]
                await asyncio.sleep(0.1)
                own = asyncio.create_task(took(call("own", clock() + 0.5)))
                others += [asyncio.create_task(took(call("more"))) for _ in range(3)]
                seconds, error = await own
                assert type(error) is TimedOut
                assert 0.4 < seconds < 0.5 + late(GRACE)
                # The other calls are not affected.
                for each in [first, *others]:
                    seconds, error = await each
                    assert isinstance(error, Unavailable | OutcomeUnknown)
                    assert PATIENT - 0.2 < seconds < PATIENT + late(GRACE)
            assert await store["own"] == 0

    asyncio.run(main())


async def outcome_of(store: PersistentRedisKVS, key: str, deadline: float | None) -> None:
    (outcome,) = await store.commit([Change(key, Guard.ANY, {key: b"1"})], deadline=deadline)
    if isinstance(outcome, KVSError):
        raise outcome


def test_calls_of_one_key_keep_their_order_whatever_their_deadlines(
    redis_server: RedisServer,
) -> None:
    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=20, timeout=0.3)
        async with PersistentRedisKVS(connection=where, lanes=1) as store:
            await store.set("key", 0)
            clock = asyncio.get_running_loop().time
            outcomes: list[object] = []
            last = asyncio.get_running_loop().create_future()
            with stopped(redis_server):
                store.submit(Change("first", Guard.ANY, {"first": b"0"}), outcomes.append)
                await asyncio.sleep(0.5)  # calls made now are queued and get deadlines
                for n in range(40):
                    deadline = None if n % 3 == 0 else clock() + (5, 15)[n % 2]
                    change = Change("key", b"%d" % n, {"key": b"%d" % (n + 1)})
                    store.submit(change, outcomes.append, deadline)
                    await asyncio.sleep(0.01)
            store.submit(Change("key", b"40", {}), last.set_result)
            assert await last is None
            assert outcomes == [None] * 41
            assert await store["key"] == 40

    asyncio.run(main())


# -- calls of many chunks ------------------------------------------------------------------------


MANY = {f"key {n}": n for n in range(2_600)}


@pytest.mark.parametrize("timeout", [0.2, 5.0], ids=["many tries", "one try"])
@pytest.mark.parametrize("name", ["multiset", "multiget", "load", "dump"])
def test_calls_of_many_chunks_fail_in_time(
    redis_server: RedisServer, redis_url: str, tmp_path: Path, name: str, timeout: float
) -> None:
    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=RETRY_FOR, timeout=timeout)
        file = tmp_path / "dumped.json"
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset(MANY)
            await store.dump(file)
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "multiset": lambda: store.multiset(dict.fromkeys(MANY, -1)),
                "multiget": lambda: store.multiget(MANY),
                "load": lambda: store.load(file),
                "dump": lambda: store.dump(file),
            }
            with stopped(redis_server):
                error = await fault_of(calls[name]())
            assert isinstance(error, Unavailable | OutcomeUnknown)
            # Afterwards everything works as before.
            await store.multiset(MANY)
            assert await store.multiget(MANY) == list(MANY.values())

    asyncio.run(main())


@pytest.mark.parametrize("name", ["multiget", "dump", "clear"])
def test_failed_time_adds_up_over_the_chunks_of_a_call(
    redis_server: RedisServer, name: str
) -> None:
    """Every other request is lost: each chunk alone meets the deadline, all together do not."""
    flapping = {"multiget": is_read, "dump": is_scan_or_read, "clear": is_scan_or_commit}

    async def main() -> None:
        async with FaultProxy("127.0.0.1", redis_server.port, only=flapping[name]) as proxy:
            where = settings_for(proxy.port, retry_for=RETRY_FOR, timeout=RETRY_FOR / 2)
            async with PersistentRedisKVS(connection=where, prefix="many:", lanes=1) as store:
                await store.multiset(MANY)
                calls: dict[str, Callable[[], Awaitable[object]]] = {
                    "multiget": lambda: store.multiget(MANY),
                    "dump": store.dump,
                    "clear": store.clear,
                }
                for at in range(1, 100, 2):
                    proxy.inject(Fault.SWALLOW_STALL, at)
                seconds, error = await took(calls[name]())
                assert isinstance(error, Unavailable | OutcomeUnknown)
                assert RETRY_FOR - 0.3 < seconds < RETRY_FOR + late(GRACE)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["multiget", "dump", "clear"])
def test_call_of_many_chunks_survives_a_lost_request(redis_server: RedisServer, name: str) -> None:
    async def main() -> None:
        async with FaultProxy("127.0.0.1", redis_server.port) as proxy:
            where = settings_for(proxy.port, retry_for=10, timeout=0.3)
            async with PersistentRedisKVS(connection=where, prefix="many:") as store:
                await store.multiset(MANY)
                for at in (1, 4, 7):
                    proxy.inject(Fault.SWALLOW_STALL, at)
                if name == "multiget":
                    assert await store.multiget(MANY) == list(MANY.values())
                elif name == "dump":
                    assert await store.dump() == MANY
                else:
                    await store.clear()
                    assert await store.keys() == []
                assert proxy.counts[Fault.SWALLOW_STALL] == 3

    asyncio.run(main())


def test_many_chunks_continue_while_the_server_answers(redis_server: RedisServer) -> None:
    """The call takes longer than the deadline, but only as long as the work needs."""

    async def main() -> None:
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults={Fault.STALL: 1.0}, stall_s=0.3
        ) as proxy:
            where = settings_for(proxy.port, retry_for=RETRY_FOR)
            async with PersistentRedisKVS(connection=where) as store:
                seconds, error = await took(store.multiset(MANY))
                assert error is None
                assert seconds > RETRY_FOR + GRACE
                assert await store.multiget(MANY) == list(MANY.values())

    asyncio.run(main())


def test_all_chunks_are_made_after_one_was_cut_off(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with FaultProxy("127.0.0.1", redis_server.port, only=is_commit) as proxy:
            where = settings_for(proxy.port, retry_for=10)
            async with PersistentRedisKVS(connection=where) as store:
                await store.set("connected", 1)
                for at in range(2, 8):
                    proxy.inject(Fault.SWALLOW_CLOSE, at)
                await store.multiset(MANY)
                assert await store.multiget(MANY) == list(MANY.values())

    asyncio.run(main())


# -- conflicts ----------------------------------------------------------------------------------


class Contended(InMemoryKVS):
    """Other writers win for `contended_s` seconds, and each commit takes `slow_s`."""

    def __init__(self, contended_s: float, slow_s: float) -> None:
        super().__init__()
        self.clock = asyncio.get_running_loop().time
        self.until = self.clock() + contended_s
        self.slow_s = slow_s
        self.left: list[float] = []  # the remaining time of each commit

    def try_for_s(self) -> float:
        return RETRY_FOR

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        now = self.clock()
        self.left.append(RETRY_FOR if deadline is None else deadline - now)
        await asyncio.sleep(self.slow_s)
        if now < self.until:
            await super().commit([Change("key", Guard.ANY, {"key": b"%d" % len(self.left)})])
        return await super().commit(changes)


@pytest.mark.parametrize("name", ["update", "remove"])
def test_conflicts_do_not_use_up_the_deadline_while_the_store_answers(name: str) -> None:
    async def main(slow_s: float) -> list[float]:
        async with Contended(contended_s=0.4, slow_s=slow_s) as store:
            await InMemoryKVS.commit(store, [Change("key", Guard.ANY, {"key": b"0"})])
            call = store.update("key", plus) if name == "update" else store.remove("key")
            await call
            return store.left

    quick = asyncio.run(main(0.01))
    assert len(quick) > 10
    assert min(quick) > RETRY_FOR - 0.06
    # Slow answers count towards the deadline.
    slow = asyncio.run(main(0.15))
    assert min(slow) < RETRY_FOR - 0.25
