"""The faults of the proxy, and one proxied connection between a client and Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

logger = logging.getLogger(__name__)

READ_MAX = 1 << 20
# DRIP sends these many bytes singly at either end of a message, and what is between at once: some
# 0.1 s for a message of any size, and every cut in its length, its first part and its end.
_DRIP_HEAD = 64
_DRIP_TAIL = 32
_DRIP_PAUSE_S = 0.001  # without it the reader, in another thread or process, finds many together
_FINISH_S = 5.0  # how long the server may take over what it got before its client was cut off


class Fault(StrEnum):
    """The kinds of faults, by what each does to the request that it strikes.

    fault           the server        the client
    CUT_BEFORE      never gets it     its connection closes (FIN)
    RESET           never gets it     its connection is reset (RST)
    BLACK_HOLE      never gets it     waits: nothing comes any more
    CUT_AFTER       runs it           its connection is reset, most often before the reply
    SWALLOW_CLOSE   runs it           its connection closes where the reply should be
    SWALLOW_STALL   runs it           waits: nothing comes any more
    CUT_REPLY       runs it           gets the first half of the reply, then its connection closes
    HALF_CLOSE      runs it           reads the end of the stream; may still send, to nobody
    STALL           runs it, late     gets the reply late; the server runs it also where the
                                      client has gone meanwhile, as with bytes on their way
    DRIP            runs it           gets the reply; both travel one byte at a time (of long ones
                                      the two ends)

    Where earlier replies are still on their way on the same connection, they are lost with it.
    """

    CUT_BEFORE = "cut_before"
    RESET = "reset"
    BLACK_HOLE = "black_hole"
    CUT_AFTER = "cut_after"
    SWALLOW_CLOSE = "swallow_close"
    SWALLOW_STALL = "swallow_stall"
    CUT_REPLY = "cut_reply"
    HALF_CLOSE = "half_close"
    STALL = "stall"
    DRIP = "drip"


class Stream(NamedTuple):
    """Both directions of one TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def reset(self) -> None:
        """Close with a reset: what is not yet sent is dropped, and the peer gets an error."""
        connection = self.writer.get_extra_info("socket")
        if connection is not None:
            no_linger = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):  # the peer was faster
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Send `data` in one piece."""
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes) -> None:
        """Send the head and the tail of `data` one byte at a time."""
        tail = max(_DRIP_HEAD, len(data) - _DRIP_TAIL)
        head, middle = data[:_DRIP_HEAD], data[_DRIP_HEAD:tail]
        for part in (*_single(head), middle, *_single(data[tail:])):
            await self.send(part)
            await asyncio.sleep(_DRIP_PAUSE_S)

    async def swallow(self) -> None:
        """Read whatever still comes, and forget it."""
        while await self.reader.read(READ_MAX):
            pass


def _single(data: bytes) -> list[bytes]:
    return [data[position : position + 1] for position in range(len(data))]


class Connection:
    """One client's connection and the one that was opened to the server for it.

    `choose` is asked for every request what is to happen to it: a fault, or None.
    """

    def __init__(
        self,
        client: Stream,
        server: Stream,
        choose: Callable[[bytes], Fault | None],
        stall_s: float,
    ) -> None:
        self._client = client
        self._server = server
        self._choose = choose
        self._stall_s = stall_s
        self._muted = False
        self._dripping = False
        self._replied = asyncio.Event()
        self._last_reply = b""

    async def run(self) -> None:
        """Carry requests and replies until one side is gone or a fault ends the connection."""
        replies = asyncio.create_task(self._carry_replies())
        try:
            with contextlib.suppress(OSError):  # the client is gone, or the server
                await self._carry_requests()
            with contextlib.suppress(OSError, RuntimeError):  # the server is gone
                self._server.writer.write_eof()
            # The server runs what it got, and then closes for its part.
            await asyncio.wait([replies], timeout=_FINISH_S)
        finally:
            # Before anything is awaited: the proxy may end, and cancel this, at that very moment.
            replies.cancel()
            self._client.writer.close()
            self._server.writer.transport.abort()
            await asyncio.gather(replies, return_exceptions=True)

    async def _carry_requests(self) -> None:
        while request := await self._client.reader.read(READ_MAX):
            fault = self._choose(request)
            self._dripping = fault is Fault.DRIP
            if fault is None:
                await self._server.send(request)
            elif fault is Fault.DRIP:
                await self._server.drip(request)
            elif fault is Fault.STALL:
                await asyncio.sleep(self._stall_s)
                await self._server.send(request)
            else:
                await self._end_with(fault, request)
                return

    async def _end_with(self, fault: Fault, request: bytes) -> None:
        """Strike `request` with a fault that the connection does not survive."""
        self._muted = True
        self._replied.clear()
        if fault not in {Fault.CUT_BEFORE, Fault.RESET, Fault.BLACK_HOLE}:
            await self._server.send(request)
        match fault:
            case Fault.CUT_BEFORE:
                self._client.writer.close()
            case Fault.RESET | Fault.CUT_AFTER:
                self._client.reset()
            case Fault.SWALLOW_CLOSE | Fault.CUT_REPLY:
                await self._replied.wait()
                if fault is Fault.CUT_REPLY:
                    await self._client.send(self._last_reply[: len(self._last_reply) // 2])
                self._client.writer.close()
            case Fault.HALF_CLOSE:
                self._client.writer.write_eof()
                await self._client.swallow()
            case _:
                await self._client.swallow()

    async def _carry_replies(self) -> None:
        try:
            while reply := await self._server.reader.read(READ_MAX):
                if self._muted:
                    if not self._replied.is_set():
                        self._last_reply = reply
                        self._replied.set()
                    continue
                try:
                    await (self._client.drip if self._dripping else self._client.send)(reply)
                except (ConnectionError, RuntimeError):
                    # The client has gone, or was told so (HALF_CLOSE) while a reply dripped; the
                    # server may still be at work.
                    self._muted = True
        except ConnectionError as error:
            logger.debug("the server dropped the connection: %s", error)
        finally:
            self._server.writer.transport.abort()  # nobody must wait for another reply
            self._replied.set()
            if not self._muted:
                self._client.writer.close()
