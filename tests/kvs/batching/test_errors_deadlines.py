"""Deadlines are kept within 0.5 s, whatever keeps a server from answering."""

# A store inside its proxy reads better nested.

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import pytest
from redis.exceptions import ResponseError
from tests.busy import late
from tests.faults.socket_calls import SocketCalls, Strike, counts_socket_calls, struck
from tests.kvs.redis_places import reads_or_commits, settings_for

from lo_kvs.kvs import (
    ConnectionLost,
    Json,
    KVSError,
    OutcomeUnknown,
    PersistentRedisKVS,
    ServerBusy,
    TimedOut,
    Unavailable,
)
from lo_kvs.kvs.redis.server.connection import Connection
from lo_kvs.redis_connection import RedisConnection, RedisSettings
from lo_kvs.stream_analytics.engine.engine import Engine
from lo_kvs.stream_analytics.engine.fold import Reducer, StateKeys
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

#: Of each call: seconds, and the type of its error.
Results: TypeAlias = list[tuple[float, type]]

RETRY_FOR = 0.8
#: How much longer than `redis_retry_for` an answer may take.
GRACE = 0.5


async def fault_of(call: Awaitable[object], *, at_most: float = RETRY_FOR) -> KVSError:
    """The error of a call, which must fail in time."""
    start = time.monotonic()
    with pytest.raises(KVSError) as caught:
        await call
    assert time.monotonic() - start < at_most + late(GRACE)
    return caught.value


@contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    """Stop the server's process: the kernel accepts connections, but there are no replies."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.mark.parametrize("timeout", [0.2, 5.0])
@pytest.mark.parametrize("used_before", [True, False], ids=["connected", "not connected"])
def test_stopped_server(redis_server: RedisServer, used_before: bool, timeout: float) -> None:
    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=RETRY_FOR, timeout=timeout)
        async with PersistentRedisKVS(connection=where) as store:
            if used_before:
                await store.set("key", 0)
                await store.set("yek", 0)
            with stopped(redis_server):
                errors = await asyncio.gather(
                    fault_of(store.get("key")), fault_of(store.set("key", 1))
                )
            kinds = [type(error) for error in errors]
            # Without a handshake, nothing was sent.
            assert kinds == [TimedOut, OutcomeUnknown if used_before else TimedOut]
            assert await store.update("key", lambda _: 2) == 2
            assert await store["key"] == 2

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [0.2, 5.0])
@pytest.mark.parametrize("fault", [Fault.BLACK_HOLE, Fault.SWALLOW_STALL])
def test_black_hole(redis_server: RedisServer, fault: Fault, timeout: float) -> None:
    async def main() -> None:
        async with FaultProxy("127.0.0.1", redis_server.port, faults={fault: 1.0}) as proxy:
            proxy.faults_on = False
            where = settings_for(proxy.port, retry_for=RETRY_FOR, timeout=timeout)
            async with PersistentRedisKVS(connection=where) as store:
                await store.set("key", 0)
                proxy.faults_on = True
                assert type(await fault_of(store.get("key"))) is TimedOut
                assert type(await fault_of(store.set("key", 1))) is OutcomeUnknown
                proxy.faults_on = False
                assert await store.update("key", lambda _: 2) == 2

    asyncio.run(main())


def test_reply_that_drips_for_longer_than_the_deadline(redis_server: RedisServer) -> None:
    """A slow trickle of bytes is not a reply: the attempt is timed, not each socket read."""

    async def main() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", redis_server.port)

        async def serve(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
            try:
                while request := await client.read(100_000):
                    writer.write(request)
                    for byte in await reader.read(100_000):
                        back.write(bytes([byte]))
                        await asyncio.sleep(0.1)
            finally:
                back.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        where = settings_for(port, retry_for=RETRY_FOR)
        async with PersistentRedisKVS(connection=where) as store:
            assert isinstance(await fault_of(store.get("key")), Unavailable)
            assert isinstance(await fault_of(store.set("key", 1)), Unavailable | OutcomeUnknown)
        server.close()
        await server.wait_closed()
        writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [0.2, 5.0], ids=["of an attempt", "of the call"])
def test_deadline_that_passes_during_the_handshake(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    """The process was busy and resumes exactly when a step of the handshake returns."""
    sent = 0

    def late_then_silent(name: str) -> Strike | None:
        nonlocal sent
        sent += name == "write"
        if name == "drain" and sent == 1:
            time.sleep(min(timeout, RETRY_FOR) + 0.1)
        # HELLO is answered; nothing after it is.
        return Strike("silence", after=True) if name == "drain" and sent > 1 else None

    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=RETRY_FOR, timeout=timeout)
        with struck(SocketCalls(late_then_silent)) as calls:
            # Not in a `with` block: closing waits for an attempt in progress.
            store = PersistentRedisKVS(connection=where)
            async with asyncio.timeout(5):
                assert type(await fault_of(store.get("key"))) is TimedOut
                calls.on = False
                assert await store.get("key") is None
            await store.aclose()

    counts_socket_calls(monkeypatch)
    asyncio.run(main())


def test_connecting_that_hangs() -> None:
    """The listener's backlog is full, so not even a SYN is answered."""

    async def main() -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            queued = [socket.socket() for _ in range(4)]
            for each in queued:
                each.setblocking(False)
                each.connect_ex(listener.getsockname())
            where = settings_for(listener.getsockname()[1], retry_for=RETRY_FOR)
            async with PersistentRedisKVS(connection=where) as store:
                assert type(await fault_of(store.get("key"))) is TimedOut
                assert type(await fault_of(store.set("key", 1))) is TimedOut
            for each in queued:
                each.close()

    asyncio.run(main())


def test_unknown_host_name() -> None:
    async def main() -> None:
        where = RedisSettings(host="nobody.invalid", retry_for=RETRY_FOR)
        async with PersistentRedisKVS(connection=where) as store:
            error = await fault_of(store.set("key", 1))
            assert isinstance(error, ConnectionLost | TimedOut)
            assert "nobody.invalid" in str(error)

    asyncio.run(main())


def test_pool_without_a_free_connection(redis_server: RedisServer) -> None:
    async def main() -> None:
        where = RedisSettings(
            host="127.0.0.1", port=redis_server.port, pool_size=4, retry_for=RETRY_FOR
        )
        connection = RedisConnection(where)
        conns = [Connection(connection) for _ in range(5)]

        async def ping(redis: object) -> object:
            await redis.send_packed_command([b"PING\r\n"])  # type: ignore[attr-defined]
            return await redis.read_response()  # type: ignore[attr-defined]

        for conn in conns[:4]:
            assert await conn.run(ping) == b"PONG"
        assert type(await fault_of(conns[4].run(ping))) is TimedOut
        waiting = asyncio.create_task(conns[4].run(ping))
        await asyncio.sleep(0.1)
        await conns[0].aclose()
        assert await waiting == b"PONG"
        for conn in conns[1:]:
            await conn.aclose()
        await connection.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("writing", [True, False], ids=["writes", "reads"])
def test_queued_calls_fail_together_not_group_by_group(
    redis_server: RedisServer, writing: bool
) -> None:
    """Thousands of calls wait for an unavailable server: all fail together, not group by group."""

    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=2)
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset({"key": 0, "yek": 0})
            with stopped(redis_server):
                start = time.monotonic()
                errors = await asyncio.gather(
                    *(
                        store.set(f"key {n}", 1) if writing else store.get(f"key {n}")
                        for n in range(2_000)  # at least two groups per connection
                    ),
                    return_exceptions=True,
                )
                # Raising that many errors takes a while if the machine is busy; a second group
                # would take 2 s.
                assert time.monotonic() - start < 3.5
            kinds = {type(error) for error in errors}
            # Calls that were not sent are known not to have been made.
            assert kinds == ({OutcomeUnknown, TimedOut} if writing else {TimedOut})
            assert sum(type(error) is OutcomeUnknown for error in errors) <= 1_000
            unsent = [n for n, error in enumerate(errors) if isinstance(error, Unavailable)]
            if writing:
                found = await store.multiget([f"key {n}" for n in unsent])
                assert found == [None] * len(unsent)

    asyncio.run(main())


def test_attempt_cut_short_by_the_deadline_does_not_hide_the_last_error(
    redis_server: RedisServer,
) -> None:
    async def main() -> None:
        connection = RedisConnection(settings_for(redis_server.port, retry_for=RETRY_FOR))
        conn = Connection(connection)
        tries = 0

        async def busy_then_silent(_: object) -> None:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise ResponseError("BUSY Redis is busy running a script.")
            await asyncio.sleep(20)

        assert type(await fault_of(conn.run(busy_then_silent, writes=False))) is ServerBusy
        assert tries == 4
        tries = 0
        error = await fault_of(
            conn.run(busy_then_silent)
        )  # the last attempt may have been executed
        assert type(error) is OutcomeUnknown
        assert error.code == "BUSY"
        await conn.aclose()
        await connection.aclose()

    asyncio.run(main())


def test_replay_and_its_read_share_one_deadline(redis_server: RedisServer) -> None:
    """The call's record answers the retry; then reading the conflicting value hangs."""

    async def main() -> None:
        async with FaultProxy("127.0.0.1", redis_server.port, only=reads_or_commits) as proxy:
            where = settings_for(proxy.port, retry_for=RETRY_FOR, timeout=0.3)
            async with PersistentRedisKVS(connection=where) as store:
                await store.set("key", 0)
                read = store.read

                async def stale(
                    keys: object, *, deadline: float | None = None
                ) -> list[bytes | None]:
                    found = await read(["key"])
                    for at in range(1, 40):
                        if at != 3:  # the third request gets the record; all others get no reply
                            proxy.inject(Fault.SWALLOW_STALL, at)
                    return [b"other" for _ in found]

                store.read = stale  # type: ignore[method-assign]
                error = await fault_of(store.remove("key"))
                assert type(error) is TimedOut

    asyncio.run(main())


async def times_of(
    call: Callable[[int], Awaitable[object]], *, calls: int, every: float
) -> Results:
    """The duration and error of many calls, started one after another during an outage."""
    results: Results = []

    async def one(number: int) -> None:
        await asyncio.sleep(number * every)
        start = time.monotonic()
        try:
            await call(number)
        except KVSError as error:
            results.append((time.monotonic() - start, type(error)))
        else:
            results.append((time.monotonic() - start, type(None)))

    await asyncio.gather(*(one(number) for number in range(calls)))
    return results


@pytest.mark.parametrize("timeout", [0.3, 5.0], ids=["many tries", "one try"])
@pytest.mark.parametrize("kind", ["set", "get", "event"])
def test_calls_made_during_an_outage_have_their_own_deadlines(
    redis_server: RedisServer, kind: str, timeout: float
) -> None:
    """Calls keep arriving during an outage; each fails at its own deadline."""
    retry_for = 1.6

    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=retry_for, timeout=timeout)
        async with PersistentRedisKVS(connection=where) as store:
            engine = Engine(store)
            reducer = Reducer("count", fault_count_of, b"null")
            for n in range(60):
                keys = StateKeys(f"key {n}", f"shown {n}")
                await engine.process(reducer, keys, "event")

            async def call(n: int) -> object:
                if kind == "set":
                    await store.set(f"key {n}", 1)
                    return None
                if kind == "get":
                    return await store.get(f"key {n}")
                keys = StateKeys(f"key {n}", f"shown {n}")
                return await engine.process(reducer, keys, "event")

            with stopped(redis_server):
                results = await times_of(call, calls=60, every=0.06)
            slowest, soonest = max(results)[0], min(results)[0]
            assert slowest < retry_for + late(GRACE)
            # And none fails much earlier; only the last pause may be cut.
            assert soonest > retry_for / 2
            assert type(None) not in {error for _, error in results}
            # Afterwards calls have their full deadline again.
            assert await store.update("after", lambda _: 2) == 2

    asyncio.run(main())


async def fault_count_of(event: object, state: int | None) -> tuple[int, int]:
    count = (state or 0) + 1
    return count, count


def test_calls_that_waited_through_an_outage_are_served(redis_server: RedisServer) -> None:
    async def main() -> None:
        where = settings_for(redis_server.port, retry_for=3, timeout=0.2)
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset({"key": 0, "yek": 0})
            with stopped(redis_server):
                calls = asyncio.create_task(
                    times_of(lambda n: store.update(f"n{n % 7}", plus), calls=300, every=0.005)
                )
                await asyncio.sleep(1.2)
            results = await calls
            assert {error for _, error in results} == {type(None)}
            assert sum([await store[f"n{n}"] for n in range(7)]) == 300

    asyncio.run(main())


def plus(value: Json) -> Json:
    return (value if isinstance(value, int) else 0) + 1
