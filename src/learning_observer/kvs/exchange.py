"""One command and one reply at a time, straight on the transport of a connection.

redis-py opens connections, greets the server and judges its errors. For the commits that go
well, and that is nearly all, its way of a reply (a stream, a parser, seven coroutines, a task
that is woken) takes longer than the server does: 20 us of the client's time for a round trip,
35 with a time-out, against 11 in this way (CPython 3.11). So while all is well a wire's replies
come here. Whatever is out of the ordinary is told, and the wire's own way takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Self

import hiredis
from redis.asyncio.connection import AbstractConnection

from learning_observer.kvs import answers

BUFFER_BYTES: Final = 64 * 1024
#: As redis-py puts it.
CLOSED: Final = "Connection closed by server."


class Lost:
    """Stands in the place of a reply that will not come, and says why."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class Exchange(asyncio.BufferedProtocol):
    """The replies of one connection, from when it is made until `end`.

    is_open  whether a command can be sent: none is under way, and the connection is there
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # redis-py's own: what ends the connection it must know.
        self._before: Any = transport.get_protocol()
        self._reader = hiredis.Reader()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._done: Callable[[Any], object] | None = None
        self.is_open = True
        transport.set_protocol(self)

    @classmethod
    def on(cls, connection: AbstractConnection) -> Self | None:
        """One on a connection that is open and idle; `None` where it does not say its transport."""
        writer: Any = getattr(connection, "_writer", None)
        transport = getattr(writer, "transport", None)
        if transport is None or transport.is_closing():
            return None
        return cls(transport)

    def send(self, command: bytes, done: Callable[[Any], object]) -> None:
        """Send a command; `done(reply)` is called once, with `Lost` where none will come."""
        self._done = done
        self.is_open = False
        try:
            self._transport.write(command)
        except answers.FAULTS as error:
            self.lose(error)

    def lose(self, error: Exception) -> None:
        """The reply that is under way will not come, or not in time. Nothing can be sent more."""
        done, self._done = self._done, None
        self.is_open = False
        if done is not None:
            done(Lost(error))

    def end(self) -> None:
        """Give the connection back to redis-py's way. No reply may be under way."""
        self.is_open = False
        if not self._transport.is_closing():
            self._transport.set_protocol(self._before)

    # -- what the transport tells -------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        received: Any = self._buffer[:nbytes]  # hiredis's stub wants bytes; any buffer will do
        self._reader.feed(received)
        try:
            reply = self._reader.gets()
        except hiredis.ProtocolError as error:
            self.lose(error)
            return
        if reply is False:  # not all of it has come
            return
        done, self._done = self._done, None
        if done is None:
            self.is_open = False  # a reply to nothing: whose is the next one?
        else:
            self.is_open = True
            done(reply)

    def eof_received(self) -> bool | None:
        self.lose(ConnectionError(CLOSED))
        answer: bool | None = self._before.eof_received()
        return answer

    def connection_lost(self, exc: Exception | None) -> None:
        self._before.connection_lost(exc)
        self.lose(exc or ConnectionError(CLOSED))

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()
