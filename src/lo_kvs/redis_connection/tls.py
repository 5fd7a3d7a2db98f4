"""TLS connections that always close their socket, and TLS errors that a retry does not fix."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any, Final, Self

from redis.asyncio.connection import SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

#: Seconds of silence in the handshake after which the server is probed for plain Redis.
HANDSHAKE_S: Final = 1.0
#: Time-out of such a probe in seconds.
PROBE_S: Final = 1.0
#: OpenSSL's errors if the server does not speak TLS.
_NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}
)
#: The first byte of a TLS alert, the reply of a TLS server to plain commands.
_ALERT: Final = r"\x15"
# X509_V_ERR_…: of the dates, and of the host's name or address.
_DATES: Final = frozenset({9, 10})
_NAMES: Final = frozenset({62, 64})


_PLAIN: Final = "set redis_tls: false (redis:// in a URL), or use a TLS port"
_SECURE: Final = "set redis_tls: true (rediss:// in a URL)"


class TLSRefused(RedisConnectionError):
    """No connection could be made, and a retry does not help. `fix` is the hint."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix

    @classmethod
    def secure_port(cls, host: str, port: int) -> Self:
        """The error for a plain connection to a TLS port."""
        return cls(f"Error connecting to {host}:{port}. The port expects TLS.", _SECURE)

    @classmethod
    def of(cls, error: RedisError) -> Self | None:
        """The error for a failed handshake if it is a permanent TLS error; otherwise `None`."""
        fix = _fix_of(error)
        return None if fix is None else cls(str(error), fix)


class PlainPort(OSError):
    """The server has no TLS."""

    def __init__(self) -> None:
        super().__init__(errno.EPROTO, "The port does not speak TLS")


def _fix_of(error: RedisError) -> str | None:
    for each in causes_of(error):
        if isinstance(each, PlainPort):
            return _PLAIN
        if isinstance(each, ssl.SSLError):
            return _fix_of_handshake(each)
    # An alert instead of a reply: redis-py's message contains the byte.
    return _SECURE if "as reply type byte" in str(error) and _ALERT in str(error) else None


def _fix_of_handshake(error: ssl.SSLError) -> str | None:
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NAMES:
            fix = "set redis_host to a name in the certificate, or redis_check_hostname: false"
        elif error.verify_code in _DATES:
            fix = "renew the server's certificate, and check the clock of this machine"
        else:
            fix = "set redis_ca to a file with the CA of the server's certificate"
        return fix
    if "ALERT" in reason:
        return "set redis_certificate and redis_key to a certificate that the server trusts"
    return _PLAIN if reason in _NO_TLS else None


def causes_of(error: BaseException | None) -> list[BaseException]:
    """The error and the chain of its causes."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


class TLSConnection(SSLConnection):
    """A TLS connection that is closed after `disconnect`, whatever the server does.

    A regular TLS shutdown waits up to 30 seconds for the peer. If the loop closed meanwhile, the
    socket would stay open.

    A Redis server without TLS may not answer the handshake, because it reads it as the start of a
    command. So a silent server is probed.
    """

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        writer = self._writer
        try:
            await super().disconnect(*args, **kwargs)
        finally:
            if writer is not None:
                writer.transport.abort()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await super()._connect()  # type: ignore[no-untyped-call]
                return
        except TimeoutError:
            pass
        if await is_plain(str(self.host), int(self.port)):
            raise PlainPort
        await super()._connect()  # type: ignore[no-untyped-call]


async def is_plain(host: str, port: int) -> bool:
    """Whether a Redis server without TLS answers at this address."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"PING\r\n")
            return (await reader.read(1)) in (b"+", b"-")
    except (OSError, EOFError):
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


async def is_secure(host: str, port: int) -> bool:
    """Whether a server with TLS answers at this address."""
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host, port, ssl=_trusting())
    except (OSError, EOFError) as error:
        return _alerted(error)
    writer.transport.abort()
    return True


def is_plain_blocking(host: str, port: int) -> bool:
    """The same as `is_plain`, synchronously."""
    try:
        with socket.create_connection((host, port), PROBE_S) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in (b"+", b"-")
    except OSError:
        return False


def is_secure_blocking(host: str, port: int) -> bool:
    """The same as `is_secure`, synchronously."""
    try:
        with (
            socket.create_connection((host, port), PROBE_S) as connection,
            _trusting().wrap_socket(connection, server_hostname=host) as secured,
        ):
            return secured.version() is not None
    except OSError as error:
        return _alerted(error)


def _alerted(error: BaseException) -> bool:
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


def _trusting() -> ssl.SSLContext:
    """For a handshake that only detects TLS: nothing is sent after it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
