"""Socket calls that fail: redis-py's own, on a real connection, before or after they were made.

    counts_socket_calls(monkeypatch)
    with struck(SocketCalls(nth(3, Strike("reset", after=True)))) as calls:
        await store.update("key", change)  # the store's third socket call is made, and fails

Connections belong to the `SocketCalls` in whose block they were opened, also in tasks that were
begun there. So many stores can be struck side by side, each by faults of its own.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pytest
from redis.asyncio.connection import Connection

#: What a struck call raises.
ERRORS: Final[dict[str, Callable[[], Exception]]] = {
    "reset": lambda: ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    "pipe": lambda: BrokenPipeError(errno.EPIPE, "Broken pipe"),
    "timeout": lambda: TimeoutError("timed out"),
    "unreachable": lambda: OSError(errno.ENETUNREACH, "Network is unreachable"),
    # What redis-py and asyncio come to after a peer's reset: redis/redis-py#4287.
    "attribute": lambda: AttributeError("'NoneType' object has no attribute 'send'"),
    "type": lambda: TypeError("'NoneType' object is not callable"),
}
#: Besides those: a read finds the end of the stream, a call never returns.
KINDS: Final = (*ERRORS, "eof", "silence")
#: The calls that each of these two can befall; the others befall every call.
ONLY: Final = {"eof": {"read"}, "silence": {"connect", "drain", "read"}}


@dataclass(frozen=True)
class Strike:
    """How a call fails: by which of `KINDS`, and whether it was carried out all the same."""

    kind: str
    after: bool

    def befalls(self, name: str) -> bool:
        # A socket that was never closed would be a leak of the test's.
        return name in ONLY.get(self.kind, {name}) and (self.after or name != "close")


#: Asked at each call: its name (connect, write, drain, read, close), and how it is to fail.
Plan: TypeAlias = Callable[[str], Strike | None]


def nth(n: int, strike: Strike) -> Plan:
    """Strike the n-th (1: the first) of the calls that `strike` can befall, and no other."""
    left = n

    def plan(name: str) -> Strike | None:
        nonlocal left
        left -= strike.befalls(name)
        if left or not strike.befalls(name):
            return None
        left = -1
        return strike

    return plan


class SocketCalls:
    """The socket calls of some connections. `strikes` lists those that failed, in order."""

    def __init__(self, plan: Plan) -> None:
        self.on = True
        self.made = 0
        self.strikes: list[tuple[str, Strike]] = []
        self._plan = plan

    async def wait(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call that is awaited, or fail."""
        strike = self.next(name)
        if strike is None:
            return await call()
        if strike.after:
            await call()
        if strike.kind == "silence":
            await asyncio.Event().wait()
        if strike.kind == "eof":
            return b""
        raise _error_of(strike)

    def at_once(self, name: str, call: Callable[[], None]) -> None:
        """Make a call that returns at once, or fail."""
        strike = self.next(name)
        if strike is None or strike.after:
            call()
        if strike is not None:
            raise _error_of(strike)

    def next(self, name: str) -> Strike | None:
        """How the call that is about to be made is to fail, if it is."""
        self.made += 1
        strike = self._plan(name) if self.on else None
        if strike is not None:
            self.strikes.append((name, strike))
        return strike


def _error_of(strike: Strike) -> Exception:
    return ERRORS[strike.kind]()


class _Reader:
    def __init__(self, reader: asyncio.StreamReader, calls: SocketCalls) -> None:
        self._reader = reader
        self._calls = calls

    async def read(self, size: int) -> bytes:
        data: bytes = await self._calls.wait("read", lambda: self._reader.read(size))
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class _Writer:
    def __init__(self, writer: asyncio.StreamWriter, calls: SocketCalls) -> None:
        self._writer = writer
        self._calls = calls

    def writelines(self, data: Iterable[bytes]) -> None:
        self._calls.at_once("write", lambda: self._writer.writelines(data))

    async def drain(self) -> None:
        await self._calls.wait("drain", self._writer.drain)

    def close(self) -> None:
        self._calls.at_once("close", self._writer.close)

    @property
    def transport(self) -> Any:
        return _Transport(self._writer.transport, self._calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class _Transport:
    """What a protocol of ours sees, once it has taken over from the streams."""

    def __init__(self, transport: asyncio.WriteTransport, calls: SocketCalls) -> None:
        self._transport = transport
        self._calls = calls

    def write(self, data: bytes) -> None:
        self._calls.at_once("write", lambda: self._transport.write(data))

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        if isinstance(protocol, asyncio.BufferedProtocol):
            protocol = _Protocol(protocol, self._calls)
        self._transport.set_protocol(protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(asyncio.BufferedProtocol):
    """A failed read is reported in the way of a transport."""

    def __init__(self, protocol: asyncio.BufferedProtocol, calls: SocketCalls) -> None:
        self._protocol: Any = protocol
        self._calls = calls
        for name in ("get_buffer", "connection_lost", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(protocol, name))

    def buffer_updated(self, nbytes: int) -> None:
        strike = self._calls.next("read")
        if strike is None:
            self._protocol.buffer_updated(nbytes)
        elif strike.kind == "eof":
            self._protocol.eof_received()
        elif strike.kind != "silence":
            self._protocol.connection_lost(_error_of(strike))

    def eof_received(self) -> bool | None:
        answer: bool | None = self._protocol.eof_received()
        return answer


_here: ContextVar[SocketCalls | None] = ContextVar("socket calls", default=None)


@contextmanager
def struck(calls: SocketCalls) -> Iterator[SocketCalls]:
    """Connections that are opened in this block, and in tasks begun in it, are struck."""
    token = _here.set(calls)
    try:
        yield calls
    finally:
        _here.reset(token)


def counts_socket_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make redis-py's connections go through the `SocketCalls` of their block, for this test."""
    connect: Any = Connection._connect

    async def _connect(connection: Any) -> None:
        calls = _here.get()
        if calls is None:
            await connect(connection)
            return
        try:
            await calls.wait("connect", lambda: connect(connection))
        except BaseException:
            if connection._writer is not None:  # it was opened, and the caller does not know
                connection._writer.transport.abort()
                connection._reader = connection._writer = None
            raise
        connection._reader = _Reader(connection._reader, calls)
        connection._writer = _Writer(connection._writer, calls)

    monkeypatch.setattr(Connection, "_connect", _connect)
