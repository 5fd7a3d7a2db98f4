"""The fast path of a commit: one command and one reply, directly on the transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import hiredis
import pytest
import redis
from tests.kvs.redis_places import settings_for

from lo_kvs.kvs import Change, Conflict, Guard, PersistentRedisKVS, WrongType
from lo_kvs.kvs.redis.protocol.round_trips import RoundTrip
from lo_kvs.kvs.redis.server.dispatcher import Dispatcher
from lo_kvs.kvs.redis.server.reader import Reader
from lo_kvs.kvs.redis.server.reply_protocol import BUFFER_BYTES, Lost, ReplyProtocol
from lo_kvs.kvs.redis.server.writer import Writer
from lo_kvs.redis_connection import factory
from lo_kvs.testing.servers.server import RedisServer


def packed(*words: Any) -> bytes:
    command: bytes = hiredis.pack_command(words)
    return command


@contextlib.asynccontextmanager
async def opened(server: RedisServer) -> AsyncIterator[tuple[Any, ReplyProtocol]]:
    """A redis-py connection, and a ReplyProtocol on it."""
    client = factory.client(settings_for(server.port))
    connection: Any = await client.connection_pool.get_connection()  # type: ignore[no-untyped-call]
    reply_protocol = ReplyProtocol.on(connection)
    assert reply_protocol is not None
    try:
        yield connection, reply_protocol
    finally:
        await connection.disconnect()
        await client.aclose()


async def until_closed(reply_protocol: ReplyProtocol) -> None:
    for _ in range(1000):
        if not reply_protocol.is_open:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody noticed")


async def reply_to(reply_protocol: ReplyProtocol, *words: Any) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    reply_protocol.send(RoundTrip(packed(*words)), future.set_result)
    assert not reply_protocol.is_open
    async with asyncio.timeout(10):
        replies = await future
        return replies if isinstance(replies, Lost) else replies[0]


def test_one_reply_after_another(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with opened(redis_server) as (_, reply_protocol):
            large = b"x" * (5 * BUFFER_BYTES + 7)
            assert await reply_to(reply_protocol, "SET", "key", large) == b"OK"
            assert await reply_to(reply_protocol, "GET", "key") == large
            assert await reply_to(reply_protocol, "GET", "not there") is None
            assert await reply_to(reply_protocol, "MGET", "not there", "nor this") == [None, None]
            error = await reply_to(reply_protocol, "LPUSH", "key", "1")
            assert isinstance(error, hiredis.ReplyError)
            assert str(error).startswith("WRONGTYPE")
            assert reply_protocol.is_open

    asyncio.run(main())


def test_the_connection_is_redis_pys_again(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with opened(redis_server) as (connection, reply_protocol):
            assert await reply_to(reply_protocol, "PING") == b"PONG"
            reply_protocol.end()
            assert not reply_protocol.is_open
            await connection.send_command("PING")
            assert await connection.read_response() == b"PONG"
            again = ReplyProtocol.on(connection)
            assert again is not None
            assert await reply_to(again, "PING") == b"PONG"

    asyncio.run(main())


@pytest.mark.parametrize("idle", [True, False])
def test_a_connection_that_is_lost(redis_server: RedisServer, idle: bool) -> None:
    async def main() -> None:
        async with opened(redis_server) as (connection, reply_protocol):
            number = await reply_to(reply_protocol, "CLIENT", "ID")
            waiting = None
            if not idle:
                waiting = asyncio.create_task(reply_to(reply_protocol, "BLPOP", "nothing", 0))
                await asyncio.sleep(0)
            with redis.Redis.from_url(redis_server.url) as other:
                assert other.client_kill_filter(_id=number) == 1
            if waiting is not None:
                assert isinstance(await waiting, Lost)
            await until_closed(reply_protocol)
            reply_protocol.end()
            await connection.disconnect()
            assert ReplyProtocol.on(connection) is None

    asyncio.run(main())


def test_a_reply_to_nothing_ends_it(redis_server: RedisServer) -> None:
    """Else every reply after it would be the answer to another command."""

    async def main() -> None:
        async with opened(redis_server) as (connection, reply_protocol):
            connection._writer.write(packed("PING"))
            await until_closed(reply_protocol)

    asyncio.run(main())


def test_unexpected_extra_reply_is_dropped(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with opened(redis_server) as (_, reply_protocol):
            answers: list[Any] = []
            reply_protocol.send(RoundTrip(packed("BLPOP", "nothing", 0)), answers.append)
            two = b"+OK\r\n+OK\r\n"
            reply_protocol.get_buffer(-1)[: len(two)] = two
            reply_protocol.buffer_updated(len(two))
            assert answers == [[b"OK"]]
            assert not reply_protocol.is_open

    asyncio.run(main())


def test_invalid_reply_counts_as_lost(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with opened(redis_server) as (_, reply_protocol):
            answers: list[Any] = []
            reply_protocol.send(RoundTrip(packed("BLPOP", "nothing", 0)), answers.append)
            nonsense = b"?what\r\n"
            reply_protocol.get_buffer(-1)[: len(nonsense)] = nonsense
            reply_protocol.buffer_updated(len(nonsense))
            (lost,) = answers
            assert isinstance(lost.error, hiredis.ProtocolError)
            assert not reply_protocol.is_open

    asyncio.run(main())


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One item for each task that a writer has needed."""
    return count_tasks(monkeypatch, Writer)


def count_tasks(
    monkeypatch: pytest.MonkeyPatch, kind: type[Dispatcher[Any, Any, Any]]
) -> list[None]:
    """One item for each task that dispatchers of this class start from here on."""
    run_all: Callable[..., Awaitable[None]] = kind._run_all
    needed: list[None] = []

    def counted(*args: Any, **named: Any) -> Awaitable[None]:
        needed.append(None)
        return run_all(*args, **named)

    monkeypatch.setattr(kind, "_run_all", counted)
    return needed


def test_successful_commits_need_no_task(redis_server: RedisServer, tasks: list[None]) -> None:
    async def main() -> None:
        where = settings_for(redis_server.port)
        async with PersistentRedisKVS(connection=where, lanes=1) as store:
            await store.set("key", 0)
            assert len(tasks) == 1  # it opens the connection
            for number in range(20):
                await store.set("key", number)
            missed = Change("key", b"something else", {"key": b"1"})
            made = Change("other", Guard.ANY, {"other": b"2", "third": None})
            assert await store.commit([missed, made]) == [Conflict(b"19"), None]
            assert await store["other"] == 2
            assert len(tasks) == 1

    asyncio.run(main())


def test_successful_reads_need_no_task(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = count_tasks(monkeypatch, Reader)

    async def main() -> None:
        where = settings_for(redis_server.port)
        async with PersistentRedisKVS(connection=where) as store:
            await store.multiset({f"key {at}": at for at in range(30)})
            with redis.Redis.from_url(redis_server.url) as other:
                other.rpush("list", "x")
            assert await store["key 0"] == 0
            assert len(needed) == 1  # it opens the connection
            keys = [f"key {at}" for at in range(35)]
            assert await store.multiget(keys) == [*range(30), *[None] * 5]
            reads = (store.get(key) for key in (*keys, "list"))
            *found, error = await asyncio.gather(*reads, return_exceptions=True)
            assert found == [*range(30), *[None] * 5]
            assert isinstance(error, WrongType)
            assert len(needed) == 1

    asyncio.run(main())


def test_lost_script_needs_one_task(redis_server: RedisServer, tasks: list[None]) -> None:
    async def main() -> None:
        where = settings_for(redis_server.port)
        with redis.Redis.from_url(redis_server.url) as other:
            async with PersistentRedisKVS(connection=where, lanes=1) as store:
                await store.set("key", 0)
                other.script_flush()
                await store.set("key", 1)
                assert len(tasks) == 2
                await store.set("key", 2)
                assert len(tasks) == 2
                assert await store["key"] == 2

    asyncio.run(main())


def test_tasks_are_used_if_redis_py_hides_its_transport(
    redis_server: RedisServer, tasks: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of it that keeps its transport elsewhere costs speed, and nothing else."""
    monkeypatch.setattr(ReplyProtocol, "on", lambda _connection: None)

    async def main() -> None:
        async with PersistentRedisKVS(connection=settings_for(redis_server.port), lanes=1) as store:
            for number in range(5):
                await store.set("key", number)
            assert await store["key"] == 4
            assert len(tasks) == 5

    asyncio.run(main())


class FailsOnce:
    """A transport whose write number `nth` fails at once, as on a socket that is gone."""

    def __init__(self, transport: Any, nth: int) -> None:
        self._transport = transport
        self._left = nth

    def write(self, data: bytes) -> None:
        self._left -= 1
        if not self._left:
            raise OSError("the socket is gone")
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


@pytest.mark.parametrize("nth", [1, 2])
def test_immediately_failing_write_needs_one_task(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nth: int,
) -> None:
    """Its error comes before `send` has returned, in the first round trip and in a later one."""
    tasks = count_tasks(monkeypatch, Reader)

    async def main() -> None:
        async with PersistentRedisKVS(connection=settings_for(redis_server.port)) as store:
            await store.set("key", 1)
            assert await store.get("key") == 1
            running: Any = store._running()
            reply_protocol: Any = running.reader._connection._reply_protocol
            reply_protocol._transport = FailsOnce(reply_protocol._transport, nth)
            tasks.clear()
            # Two round trips: an absent key is asked for its type.
            assert await store.get("absent") is None
            assert len(tasks) == 1
            assert await store.get("key") == 1

    asyncio.run(main())
    assert not caplog.records
