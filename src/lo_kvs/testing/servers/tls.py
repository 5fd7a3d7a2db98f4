"""TLS in front of a plain server, for servers that were built without it.

    with TLSProxy(server.port, certificate=..., key=...) as proxy:
        settings = RedisSettings(host="localhost", port=proxy.port, tls=True, ca=...)

The programs that packages bring for tests often lack TLS; to a client this is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
_READ_MAX = 1 << 16
_END_S = 2.0


class TLSProxy:
    """Takes TLS connections on a port of its own and carries what they say to a plain server.

    certificate, key  PEM files of the server's certificate and its key
    client_ca         PEM file: only clients with a certificate of this CA are let in

    It runs in a thread with an event loop of its own, so that clients of any kind can use it.
    `connections` counts the clients that were let in.
    """

    def __init__(
        self,
        upstream_port: int,
        *,
        certificate: str | os.PathLike[str],
        key: str | os.PathLike[str],
        client_ca: str | os.PathLike[str] | None = None,
    ) -> None:
        self.port = 0
        self.connections = 0
        self._upstream_port = upstream_port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        if client_ca is not None:
            self._context.load_verify_locations(client_ca)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._closing = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        # A daemon: a test that hangs must not keep the interpreter from ending.
        self._thread = threading.Thread(target=self._run, name="tls-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loop, end = self._started.result()
        loop.call_soon_threadsafe(end.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        end = asyncio.Event()
        loop = asyncio.get_running_loop()
        # The client gets its own errors; asyncio would log them as errors here.
        loop.set_exception_handler(lambda _loop, _context: None)
        listener = await asyncio.start_server(self._accept, HOST, 0, ssl=self._context)
        self.port = listener.sockets[0].getsockname()[1]
        self._started.set_result((loop, end))
        await end.wait()
        self._closing = True
        listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # a client in the middle of its greeting
            await asyncio.wait_for(listener.wait_closed(), _END_S)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing:  # it greeted while the others were sent away
            writer.transport.abort()
            return

        def forget(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            writer.transport.abort()  # a task that is cancelled before its first step does not

        self.connections += 1
        task = asyncio.create_task(self._carry_both(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(forget)

    async def _carry_both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opening = asyncio.create_task(asyncio.open_connection(HOST, self._upstream_port))
        try:
            upstream_reader, upstream = await asyncio.shield(opening)
        except OSError:  # the server is gone
            writer.transport.abort()
            return
        except asyncio.CancelledError:  # it may be open by now, and then nobody has it
            opening.add_done_callback(_abort_opened)
            raise
        directions = [
            asyncio.create_task(_carry(reader, upstream)),
            asyncio.create_task(_carry(upstream_reader, writer)),
        ]
        try:
            # TLS knows no half-closed connection: where one direction ends, both do.
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:  # first of all, as this may be cancelled while it waits
            upstream.transport.abort()
            writer.transport.abort()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)


def _abort_opened(
    opening: asyncio.Task[tuple[asyncio.StreamReader, asyncio.StreamWriter]],
) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result()[1].transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_READ_MAX):
            writer.write(data)
            await writer.drain()
