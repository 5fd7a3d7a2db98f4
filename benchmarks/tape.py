"""Records the commands that our store sends to the server.

So the plain round trip of P1 sends exactly the bytes of a commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import hiredis

from benchmarks.setting import Setting, default_store
from benchmarks.work import event_of, metadata_of
from lo_kvs.kvs import PersistentRedisKVS
from lo_kvs.kvs.changes import RESERVED_PREFIX
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.helpers import DecoratedReducer
from lo_kvs.testing.servers.server import HOST

RECORD: Final = RESERVED_PREFIX.encode()
Command = list[bytes]


async def commits(
    setting: Setting, reducer: DecoratedReducer, student: str, count: int
) -> list[Command]:
    """The commands with which `count` events of a student are committed, in their order."""
    async with recording(setting) as (port, seen):
        where = RedisSettings(host=HOST, port=port)
        async with PersistentRedisKVS(connection=where) as store:
            with default_store(store):
                process = await reducer(metadata_of(student))
                # The server has the script from now on, and never asks for its text again.
                other = await reducer(metadata_of(f"{student}-before"))
                await other(event_of(student), {})
                for _ in range(count):
                    await process(event_of(student), {})
    own = f"STUDENT:{student}".encode()
    found = [command for command in seen if _is_commit(command, own)]
    if len(found) != count:
        raise RuntimeError(f"{count} events were committed by {len(found)} commands")
    return found


def _is_commit(command: Command, student: bytes) -> bool:
    """Whether a writer's record is among its keys, and the student's own state."""
    keys = [word for word in command if word.startswith((RECORD, b"Internal,"))]
    return any(key.startswith(RECORD) for key in keys) and any(
        key.endswith(student) for key in keys
    )


@contextlib.asynccontextmanager
async def recording(setting: Setting) -> AsyncIterator[tuple[int, list[Command]]]:
    """A port that leads to the server, and the commands that came through it so far."""
    seen: list[Command] = []
    connections: list[asyncio.Task[Any]] = []

    async def relay(source: asyncio.StreamReader, sink: asyncio.StreamWriter, log: Any) -> None:
        try:
            while data := await source.read(65_536):
                if log is not None:
                    log.feed(data)
                    while (command := log.gets()) is not False:
                        seen.append(command)
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, setting.server.port)
        connections.append(asyncio.create_task(relay(reader, back, hiredis.Reader())))
        connections.append(asyncio.create_task(relay(there, writer, None)))

    async with await asyncio.start_server(connected, HOST, 0) as relaying:
        port: int = relaying.sockets[0].getsockname()[1]
        try:
            yield port, seen
        finally:
            await asyncio.gather(*connections, return_exceptions=True)
