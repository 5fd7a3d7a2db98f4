"""One round trip at a time, straight on the transport of a connection.

redis-py opens connections, greets the server and judges its errors. For the commits that go
well, and that is nearly all, its way of a reply (a stream, a parser, seven coroutines, a task
that is woken) takes longer than the server does: 20 us of the client's time for a round trip,
35 with a time-out, against 11 in this way (CPython 3.11). So while all is well a wire's replies
come here. Whatever is out of the ordinary is told, and the wire's own way takes over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Self, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection

from lo_kvs.kvs.redis.protocol.round_trips import RoundTrip

BUFFER_BYTES: Final = 64 * 1024
#: What begins a reply of several items: array, map, set, push.
AGGREGATES: Final = b"*%~>"
#: No command of ours has a reply of so many items (10 million). hiredis makes room for as many
#: as the server announces, at once: a thousand million hold the event loop up for seconds.
ITEMS_DIGITS_MAX: Final = 8
#: As redis-py puts it.
CLOSED: Final = "RawConnection closed by server."


class Lost:
    """Stands in the place of replies that will not come, or not all of them, and says why."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


#: Is called once, with the replies to what was sent.
Done: TypeAlias = Callable[[list[Any] | Lost], object]


class ReplyProtocol(asyncio.BufferedProtocol):
    """The replies of one connection, from when it is made until `end`.

    is_open  whether anything can be sent: nothing is under way, and the connection is there
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # redis-py's own: what ends the connection it must know.
        self._before: Any = transport.get_protocol()
        self._reader = hiredis.Reader()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._done: Done | None = None
        self._replies: list[Any] = []
        self._expected = 0
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

    def send(self, trip: RoundTrip, done: Done) -> None:
        """Send commands; `done(replies)` is called once, with `Lost` where one will not come.

        An error of the server stands among the replies as an exception.
        """
        self._done = done
        self._replies, self._expected = [], trip.replies
        self.is_open = False
        try:
            self._transport.write(trip.commands)
        except Exception as error:  # noqa: BLE001 - whatever it was, `done` must be called
            self.lose(error)

    def lose(self, error: Exception) -> None:
        """What is under way will not come, or not in time. Nothing can be sent more."""
        done, self._done = self._done, None
        self.is_open = False
        if done is not None:
            done(Lost(error))

    def end(self) -> None:
        """Give the connection back to redis-py's way. Nothing may be under way."""
        self.is_open = False
        if not self._transport.is_closing():
            self._transport.set_protocol(self._before)

    # -- what the transport tells -------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        received: Any = self._buffer[:nbytes]  # hiredis's stub wants bytes; any buffer will do
        if received[0] in AGGREGATES and not self._reader.has_data() and _is_too_long(received):
            self.lose(ConnectionError("the server announced a reply that no command has"))
            return
        self._reader.feed(received)
        try:
            while True:
                reply = self._reader.gets()
                if reply is False:  # not all of it has come
                    return
                self._replies.append(reply)
                if len(self._replies) >= self._expected:
                    break
        except Exception as error:  # noqa: BLE001 - bytes that are no reply, or no memory for it
            self.lose(error)
            return
        done, self._done = self._done, None
        # A reply to nothing, now or behind the others: whose is the next one?
        self.is_open = done is not None and not self._reader.has_data()
        if done is not None:
            done(self._replies)

    def eof_received(self) -> bool | None:
        try:
            answer: bool | None = self._before.eof_received()
        finally:
            self.lose(ConnectionError(CLOSED))
        return answer

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._before.connection_lost(exc)
        finally:
            self.lose(exc or ConnectionError(CLOSED))

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()


def _is_too_long(received: memoryview) -> bool:
    """Whether the reply that begins here announces more items than any of ours has."""
    digits = bytes(received[1 : ITEMS_DIGITS_MAX + 1])
    return len(digits) == ITEMS_DIGITS_MAX and digits.isdigit()
