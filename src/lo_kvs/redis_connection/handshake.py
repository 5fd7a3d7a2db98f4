"""Connection classes: fall back to RESP2 for servers without HELLO; remove secrets from errors.

redis-py starts each connection with `HELLO 3`, which Redis before version 6, some managed servers
and most proxies do not support. The stores do not need RESP3, so the connection is opened again
with RESP2, and its pool remembers that. Servers with HELLO need no extra round trip.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

import redis.asyncio.connection
import redis.connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from lo_kvs.redis_connection import tls
from lo_kvs.redis_connection.redaction import Secrets
from lo_kvs.redis_connection.tls import PlainPort, TLSConnection, TLSRefused

#: redis-py's text if a server closes the connection instead of answering.
CLOSED: Final = "Connection closed by server."
#: If the error reply to HELLO has one of these codes, it is about the user or the state of the
#: server, and would be the same with RESP2.
ABOUT_OTHERS: Final = frozenset(
    {"NOAUTH", "WRONGPASS", "LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "DENIED"}
)


class Handshake:
    """The handshake of the connections of one pool, which share this object.

    protocol  3: with HELLO; 2: without
    known     whether a server has accepted HELLO
    """

    def __init__(self, protocol: int = 3) -> None:
        self.protocol = protocol
        self.known = False

    def may_lack_hello(self, error: RedisError) -> bool:
        """Whether `error`, raised during a handshake, can mean that the server has no HELLO.

        A proxy such as twemproxy closes the connection after an unknown command. If the server
        has accepted HELLO before, the reason is another one.
        """
        if self.protocol == 2:
            return False
        if isinstance(error, ResponseError):
            code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
            return code not in ABOUT_OTHERS
        return was_closed(error) and not self.known


def was_closed(error: BaseException) -> bool:
    """Whether the server closed the connection without a reply."""
    return isinstance(error, RedisConnectionError) and str(error) == CLOSED


if TYPE_CHECKING:
    _Asynchronous = redis.asyncio.connection.AbstractConnection
    _Blocking = redis.connection.AbstractConnection
else:
    _Asynchronous = _Blocking = object


class _Greets(_Asynchronous):
    """Mixin for asynchronous connections: the handshake, and errors without secrets."""

    def __init__(self, *, handshake: Handshake, **options: Any) -> None:
        self._secrets = _secrets_of(options)
        self._handshake = handshake
        self._greets = False
        super().__init__(**{**options, "protocol": handshake.protocol})

    def set_parser(self, parser_class: Any) -> None:
        super().set_parser(parser_class)
        _clean_errors(self._parser, self._secrets)

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        self._greets = True
        await super().on_connect_check_health(check_health)

    async def connect(self) -> None:
        if self.is_connected:
            return
        self.protocol, self._greets = self._handshake.protocol, False
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except RedisError as error:
            insecure = TLSRefused.of(error)
            if insecure is not None:
                raise insecure from error
            if not self._greets:
                raise
            refusal = error
        else:
            self._handshake.known = True
            return
        if self._handshake.may_lack_hello(refusal):
            await self._connect_without_hello(refusal)
        else:
            await self._raise_as_it_is(refusal)

    async def _connect_without_hello(self, refusal: RedisError) -> None:
        self.protocol = 2
        try:
            await super().connect()  # type: ignore[no-untyped-call]
            if was_closed(refusal):  # there was no reply yet
                await self.send_command("PING")
                await self.read_response()
        except RedisConnectionError as error:
            await self.disconnect(nowait=True)
            if getattr(error, "status_code", None):  # the server answered: a wrong password
                raise
            failed = True
        else:
            failed = False
        if failed:
            await self._raise_as_it_is(refusal)
        self._handshake.protocol = 2

    async def _raise_as_it_is(self, refusal: RedisError) -> NoReturn:
        """Raise the error of the handshake, or an error that the port expects TLS."""
        where = _place_of(self, refusal)
        if where is not None and await tls.is_secure(*where):
            raise TLSRefused.secure_port(*where)
        raise refusal


class _GreetsBlocking(_Blocking):
    """The same, synchronously."""

    def __init__(self, *, handshake: Handshake, **options: Any) -> None:
        self._secrets = _secrets_of(options)
        self._handshake = handshake
        self._greets = False
        super().__init__(**{**options, "protocol": handshake.protocol})

    def set_parser(self, parser_class: Any) -> None:
        super().set_parser(parser_class)  # type: ignore[no-untyped-call]
        _clean_errors(self._parser, self._secrets)

    def on_connect_check_health(self, check_health: bool = True) -> None:
        self._greets = True
        super().on_connect_check_health(check_health)

    def connect(self) -> None:
        if self.is_connected:
            return
        self.protocol, self._greets = self._handshake.protocol, False
        try:
            super().connect()  # type: ignore[no-untyped-call]
        except RedisError as error:
            insecure = TLSRefused.of(error)
            if insecure is not None:
                raise insecure from error
            if not self._greets:
                raise
            refusal = error
        else:
            self._handshake.known = True
            return
        if self._handshake.may_lack_hello(refusal):
            self._connect_without_hello(refusal)
        else:
            self._raise_as_it_is(refusal)

    def _connect_without_hello(self, refusal: RedisError) -> None:
        self.protocol = 2
        try:
            super().connect()  # type: ignore[no-untyped-call]
            if was_closed(refusal):
                self.send_command("PING")  # type: ignore[no-untyped-call]
                self.read_response()
        except RedisConnectionError as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            if getattr(error, "status_code", None):
                raise
            failed = True
        else:
            failed = False
        if failed:
            self._raise_as_it_is(refusal)
        self._handshake.protocol = 2

    def _raise_as_it_is(self, refusal: RedisError) -> NoReturn:
        where = _place_of(self, refusal)
        if where is not None and tls.is_secure_blocking(*where):
            raise TLSRefused.secure_port(*where)
        raise refusal


class Connection(_Greets, redis.asyncio.connection.Connection):
    """A TCP connection."""


class SecureConnection(_Greets, TLSConnection):
    """The same, with TLS."""


class UnixConnection(_Greets, redis.asyncio.connection.UnixDomainSocketConnection):
    """A connection to a unix socket.

    redis-py's own class does the handshake twice, and reports an error of the first one as a lost
    connection: a wrong password would be retried until the deadline.
    """

    async def _connect(self) -> None:
        async with asyncio.timeout(self.socket_connect_timeout):
            self._reader, self._writer = await asyncio.open_unix_connection(self.path)


class BlockingConnection(_GreetsBlocking, redis.connection.Connection):
    """A synchronous TCP connection."""


class BlockingSecureConnection(_GreetsBlocking, redis.connection.SSLConnection):
    """The same, with TLS."""

    def _connect(self) -> Any:
        try:
            return super()._connect()  # type: ignore[no-untyped-call]
        except TimeoutError:
            if not tls.is_plain_blocking(str(self.host), int(self.port)):
                raise
        raise PlainPort


class BlockingUnixConnection(_GreetsBlocking, redis.connection.UnixDomainSocketConnection):
    """A synchronous connection to a unix socket."""


def _place_of(connection: Any, refusal: RedisError) -> tuple[str, int] | None:
    """Host and port of a server that may expect TLS, because it closed the connection."""
    secure = (redis.asyncio.connection.SSLConnection, redis.connection.SSLConnection)
    if isinstance(connection, secure) or not hasattr(connection, "port"):
        return None
    cut = was_closed(refusal) or any(
        isinstance(cause, ConnectionResetError) for cause in tls.causes_of(refusal)
    )
    if not cut or connection._handshake.known:
        return None
    return str(connection.host), int(connection.port)


def _secrets_of(options: dict[str, Any]) -> Secrets:
    return Secrets([options.get("password")], [options.get("username")])


def _clean_errors(parser: Any, secrets: Secrets) -> None:
    """Remove secrets from the texts of errors before they are created, also within lists."""
    parser.parse_error = functools.partial(_parsed, parser.parse_error, secrets)


def _parsed(parse: Callable[[str], Exception], secrets: Secrets, text: str) -> Exception:
    text = secrets.clean(text)
    try:
        return parse(text)
    except (ValueError, LookupError):  # it starts with MOVED or ASK, but has no address
        return ResponseError(text)
