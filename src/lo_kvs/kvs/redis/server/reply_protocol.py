"""ReplyProtocol: reads the replies of one connection directly from its transport.

redis-py opens connections, does the handshake and classifies errors. For commits that succeed,
which are nearly all, its path for a reply (a stream, a parser, seven coroutines, a task switch)
takes longer than the server: 20 us of client time per round trip, 35 with a time-out, compared to
11 with this protocol (CPython 3.11). So while there are no errors, replies are read here. Anything
unusual is reported to the `Connection`, which then continues with redis-py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Self, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection

from lo_kvs.kvs.redis.protocol.round_trips import RoundTrip
from lo_kvs.kvs.redis.protocol.server_errors import CLOSED

BUFFER_BYTES: Final = 64 * 1024
#: The first byte of a reply with several items: array, map, set, push.
AGGREGATES: Final = b"*%~>"
#: None of our commands has a reply with this many items (10 million). hiredis allocates memory for
#: the announced number at once: 10^9 items block the event loop for seconds.
ITEMS_DIGITS_MAX: Final = 8


class Lost:
    """Given to the callback instead of replies if they will not arrive, with the reason."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


#: A callback that is called once, with the replies.
Done: TypeAlias = Callable[[list[Any] | Lost], object]


class ReplyProtocol(asyncio.BufferedProtocol):
    """Reads the replies of one connection until `end`.

    is_open  whether commands can be sent: none are in flight, and the connection is open
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # redis-py's protocol must be notified when the connection ends.
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
        """Install it on an open, idle connection; `None` if the transport cannot be found."""
        writer: Any = getattr(connection, "_writer", None)
        transport = getattr(writer, "transport", None)
        if transport is None or transport.is_closing():
            return None
        return cls(transport)

    def send(self, trip: RoundTrip, done: Done) -> None:
        """Send commands. `done` is called once, with the replies or with `Lost`.

        An error reply is an exception among the replies.
        """
        self._done = done
        self._replies, self._expected = [], trip.replies
        self.is_open = False
        try:
            self._transport.write(trip.commands)
        except Exception as error:  # noqa: BLE001 - `done` must be called in any case
            self.lose(error)

    def lose(self, error: Exception) -> None:
        """Report the replies in flight as lost or late. Nothing more can be sent."""
        done, self._done = self._done, None
        self.is_open = False
        if done is not None:
            done(Lost(error))

    def end(self) -> None:
        """Give the connection back to redis-py. No command may be in flight."""
        self.is_open = False
        if not self._transport.is_closing():
            self._transport.set_protocol(self._before)

    # -- called by the transport --------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        received: Any = self._buffer[:nbytes]  # hiredis's stub wants bytes; any buffer will do
        if received[0] in AGGREGATES and not self._reader.has_data() and _is_too_long(received):
            self.lose(ConnectionError("the reply is larger than any reply to our commands"))
            return
        self._reader.feed(received)
        try:
            while True:
                reply = self._reader.gets()
                if reply is False:  # it is incomplete
                    return
                self._replies.append(reply)
                if len(self._replies) >= self._expected:
                    break
        except Exception as error:  # noqa: BLE001 - not a valid reply, or out of memory
            self.lose(error)
            return
        done, self._done = self._done, None
        # After an unexpected reply, later replies cannot be assigned to their commands.
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
    """Whether the reply that starts here announces more items than any of ours can have."""
    digits = bytes(received[1 : ITEMS_DIGITS_MAX + 1])
    return len(digits) == ITEMS_DIGITS_MAX and digits.isdigit()
