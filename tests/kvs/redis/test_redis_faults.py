"""Broken connections and unavailable servers: outcomes are as promised."""

# A store inside its proxy reads better nested.
# ruff: noqa: SIM117

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import redis
from tests.busy import late
from tests.kvs.redis_places import closed_port, raw_bytes, reads_or_commits, settings_for

from lo_kvs.kvs import (
    OutcomeUnknown,
    PersistentRedisKVS,
    Refused,
    Store,
    Unavailable,
)
from lo_kvs.kvs.redis.protocol.commit_script import COMMIT, Call
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, Rounds
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

UPDATES = 35
TASKS = 4
LOST = {
    Fault.CUT_BEFORE: 0.04,
    Fault.RESET: 0.04,
    Fault.CUT_AFTER: 0.08,
    Fault.SWALLOW_CLOSE: 0.12,
    Fault.HALF_CLOSE: 0.04,
}


async def count_through(store: Store) -> int:
    """Count from several tasks, each on one of two keys; returns how many updates came back."""

    async def count(task: int) -> int:
        for _ in range(UPDATES):
            await store.update(f"counter {task % 2}", lambda value: int(str(value or 0)) + 1)
        return UPDATES

    return sum(await asyncio.gather(*(count(task) for task in range(TASKS))))


async def counted_and_returned(server: RedisServer, seed: int) -> tuple[int, int, int]:
    async with (
        FaultProxy(
            "127.0.0.1", server.port, seed=seed, faults=LOST, only=reads_or_commits
        ) as proxy,
        PersistentRedisKVS(connection=settings_for(proxy.port, retry_for=30)) as store,
    ):
        returned = await count_through(store)
        proxy.faults_on = False
        counts = await store.multiget(["counter 0", "counter 1"])
        lost = sum(proxy.counts[each] for each in (Fault.SWALLOW_CLOSE, Fault.CUT_AFTER))
    return sum(counts), returned, lost


def test_updates_whose_replies_are_lost_count_once(
    redis_server: RedisServer, redis_url: str
) -> None:
    counted, returned, lost = asyncio.run(counted_and_returned(redis_server, seed=7))
    assert lost > 10
    assert counted == returned == TASKS * UPDATES


def test_counting_shows_when_calls_are_not_recorded(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above can fail: here the record of a call is looked for where none can be."""
    rounds = Call.rounds
    sent = 0

    def rounds_without_record(call: Call) -> Rounds[Outcomes]:
        nonlocal sent
        sent += 1
        record = b"writer:%032x" % sent
        command = re.sub(b"writer:[0-9a-f]{32}", record, call.packed.command, count=1)
        return rounds(call._replace(packed=call.packed._replace(command=command)))

    monkeypatch.setattr(Call, "rounds", rounds_without_record)
    counted, returned, lost = asyncio.run(counted_and_returned(redis_server, seed=7))
    assert lost > 10
    assert counted > returned


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.DRIP])
def test_one_commit_struck_by_each_fault(
    redis_server: RedisServer, redis_url: str, fault: Fault
) -> None:
    async def main() -> None:
        async with FaultProxy("127.0.0.1", redis_server.port, only=reads_or_commits) as proxy:
            where = settings_for(proxy.port, timeout=0.15)
            async with PersistentRedisKVS(connection=where) as store:
                await store.set("counter", 0)
                for at in range(1, 3):
                    proxy.inject(fault, 2)  # first comes the read
                    assert await store.update("counter", lambda v: int(str(v)) + 1) == at
                    proxy.inject(fault)
                    assert await store["counter"] == at
                assert proxy.counts[fault] == 4

    asyncio.run(main())


def test_dripping_replies_are_read_whole(redis_server: RedisServer, redis_url: str) -> None:
    async def main() -> None:
        faults = {Fault.DRIP: 1.0}
        async with FaultProxy("127.0.0.1", redis_server.port, faults=faults) as proxy:
            async with PersistentRedisKVS(connection=settings_for(proxy.port)) as store:
                await store.set("key", {"text": "é" * 50})
                assert await store["key"] == {"text": "é" * 50}

    asyncio.run(main())


def test_cancelled_caller_does_not_disturb_its_connection(
    redis_server: RedisServer, redis_url: str
) -> None:
    async def main() -> None:
        async with FaultProxy("127.0.0.1", redis_server.port, only=reads_or_commits) as proxy:
            async with PersistentRedisKVS(connection=settings_for(proxy.port)) as store:
                await store.multiset({"a": 0, "b": 0})
                connections = proxy.connections
                for _ in range(5):
                    proxy.inject(Fault.STALL)  # the call is on its way for 0.2 s
                    leaving = asyncio.create_task(store.set("a", 1))
                    staying = asyncio.create_task(store.get("b"))
                    await asyncio.sleep(0.02)
                    leaving.cancel()
                    assert await staying == 0
                await store.set("a", 2)
                assert await store["a"] == 2
                # Nobody's connection was given up for it: two lanes, and one that reads.
                assert proxy.connections <= max(connections, 3)

    asyncio.run(main())


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get("key"),
        lambda store: store.set("key", 1),
        lambda store: store.update("key", lambda _: 1),
        lambda store: store.multiset({"a": 1, "b": 2}),
        lambda store: store.remove("key"),
        lambda store: store.keys(),
        lambda store: store.dump(),
    ],
    ids=["get", "set", "update", "multiset", "remove", "keys", "dump"],
)
def test_nothing_listens(use: Callable[[Store], object]) -> None:
    async def main() -> None:
        async with PersistentRedisKVS(
            connection=settings_for(closed_port(), retry_for=0.3)
        ) as store:
            start = time.monotonic()
            with pytest.raises(Unavailable, match=r"127\.0\.0\.1:\d+: gave up after 0\.2\d+ s"):
                await use(store)  # type: ignore[misc]
            assert time.monotonic() - start < late(0.8)

    asyncio.run(main())


def test_server_that_never_answers() -> None:
    """Bytes that were sent may have been taken: reads say unavailable, writes say unknown."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1_000):
                pass
        finally:
            writer.close()

    async def use() -> None:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        where = settings_for(port, retry_for=0.4, timeout=0.15)
        async with PersistentRedisKVS(connection=where) as store:
            for call in (lambda: store.get("key"), lambda: store.set("key", 1)):
                start = time.monotonic()
                # Connecting itself says nothing to the server: what is lost is the command.
                with pytest.raises((Unavailable, OutcomeUnknown)):
                    await call()
                assert time.monotonic() - start < late(0.9)
        server.close()
        await server.wait_closed()

    asyncio.run(use())


@asynccontextmanager
async def server_that_answers(*answers: bytes) -> AsyncIterator[int]:
    """A server that answers reads and commits with these, the last again and again; its port."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.read(100_000):
                if reads_or_commits(request):
                    writer.write(left.pop(0) if len(left) > 1 else left[0])
                elif b"HELLO" in request:
                    writer.write(b"%1\r\n$5\r\nproto\r\n:3\r\n")
                else:
                    writer.write(b"+OK\r\n")
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


NOT_NOW = [
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-BUSY Redis is busy running a script.\r\n",
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
    b"-CLUSTERDOWN The cluster is down\r\n",
    b"-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
    b"-NOREPLICAS Not enough good replicas to write.\r\n",
]


@pytest.mark.parametrize("answer", NOT_NOW, ids=lambda answer: answer[1:].split()[0].decode())
def test_server_with_a_temporary_error(answer: bytes) -> None:
    """A retry helps; if it does not, nothing was done."""

    async def main() -> None:
        async with server_that_answers(answer, answer, b"*1\r\n$1\r\nc\r\n") as port:
            async with PersistentRedisKVS(connection=settings_for(port)) as store:
                await store.set("key", 1)
        async with server_that_answers(answer) as port:
            where = settings_for(port, retry_for=0.2)
            async with PersistentRedisKVS(connection=where) as store:
                for call in (lambda: store.set("key", 1), lambda: store.get("key")):
                    with pytest.raises(Unavailable):
                        await call()

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
        b"-NOPERM this user has no permissions\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-ERR unknown command\r\n",
        b"-MISCONF Redis is configured to save RDB snapshots, but it can't\r\n",
        b"-LOKVS_STALE call 1 comes after call 2\r\n",
    ],
    ids=lambda answer: answer[1:].split()[0].decode(),
)
def test_server_that_refuses(answer: bytes) -> None:
    async def main() -> None:
        async with server_that_answers(answer) as port:
            async with PersistentRedisKVS(connection=settings_for(port)) as store:
                start = time.monotonic()
                words = answer[1:].strip().decode().removeprefix("ERR ")
                for call in (lambda: store.set("key", 1), lambda: store.get("key")):
                    with pytest.raises(Refused, match=re.escape(words)):
                        await call()
                assert time.monotonic() - start < late(1)

    asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n",
        b":1\r\n",
        b"*0\r\n",
        b"*1\r\n$2\r\ncc\r\n",
        b"_\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n$1\r\n\xff\r\n",
        b"*2\r\n$1\r\nt\r\n:7\r\n",
        b"*1\r\n*1\r\n+x\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"what is this?\r\n",
        b",1.5\r\n",
    ],
)
def test_reply_that_no_script_of_ours_returns(answer: bytes) -> None:
    """Something else than Redis answers: the store asks again on a new connection, and where
    that goes on says so by the deadline.
    """

    async def main() -> None:
        async with server_that_answers(answer, answer, b"*1\r\n$1\r\nc\r\n", answer) as port:
            async with PersistentRedisKVS(connection=settings_for(port, retry_for=0.3)) as store:
                await store.set("key", 1)
                start = time.monotonic()
                with pytest.raises(OutcomeUnknown, match=r"unexpected reply|Protocol error"):
                    await store.set("key", 2)
                assert time.monotonic() - start < late(2)

    asyncio.run(main())


def test_reply_that_announces_too_many_items() -> None:
    """The parser would make room for all of it, and hold the event loop up for seconds."""

    async def main() -> None:
        done, endless = b"*1\r\n$1\r\nc\r\n", b"*1000000000\r\n"
        async with server_that_answers(done, endless, done) as port:
            async with PersistentRedisKVS(connection=settings_for(port, retry_for=20)) as store:
                await store.set("key", 1)
                start = time.monotonic()
                await store.set("key", 2)
                assert time.monotonic() - start < late(2)

    asyncio.run(main())


def test_lost_for_longer_than_the_deadline_is_unknown(
    redis_server: RedisServer, redis_url: str
) -> None:
    async def main() -> None:
        faults = {Fault.SWALLOW_CLOSE: 1.0}
        async with FaultProxy(
            "127.0.0.1", redis_server.port, faults=faults, only=reads_or_commits
        ) as proxy:
            where = settings_for(proxy.port, retry_for=0.3)
            async with PersistentRedisKVS(connection=where) as store:
                with pytest.raises(Unavailable):  # reading changes nothing
                    await store.get("key")
                with pytest.raises(OutcomeUnknown):
                    await store.set("key", [1])
                proxy.faults_on = False
                # It was made, once; and the next call goes on from there.
                assert await store.update("key", lambda value: [value]) == [[1]]

    asyncio.run(main())


def test_refused_after_a_lost_reply_is_unknown() -> None:
    """The first attempt was executed, only its reply is lost: never report "nothing written"."""

    async def main(server: RedisServer) -> None:
        with redis.Redis(port=server.port) as client:
            client.script_load(COMMIT.text)

            def strikes(request: bytes) -> bool:
                if not reads_or_commits(request):
                    return False
                client.config_set("requirepass", "changed meanwhile")
                return True

            faults = {Fault.SWALLOW_CLOSE: 1.0}
            async with FaultProxy("127.0.0.1", server.port, faults=faults, only=strikes) as proxy:
                where = settings_for(proxy.port, retry_for=1)
                async with PersistentRedisKVS(connection=where) as store:
                    with pytest.raises(OutcomeUnknown):
                        await store.set("key", 1)
            assert raw_bytes(client, "key") == b"1"

    with RedisServer() as server:
        asyncio.run(main(server))
