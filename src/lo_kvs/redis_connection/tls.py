"""TLS: connections that leave no socket behind, and the faults that trying again does not fix."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any, Final, Self

from redis.asyncio.connection import SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

#: Seconds after which a server that is silent during the handshake is asked whether it has TLS.
HANDSHAKE_S: Final = 1.0
#: Seconds that such a question may take.
PROBE_S: Final = 1.0
#: What OpenSSL says where the other side does not speak TLS at all.
_NO_TLS: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}
)
#: How an alert begins: what TLS answers to anything else.
_ALERT: Final = r"\x15"
# X509_V_ERR_…: of the dates, and of the host's name or address.
_DATES: Final = frozenset({9, 10})
_NAMES: Final = frozenset({62, 64})


_PLAIN: Final = "set redis_tls: false (redis:// in a URL), or use a TLS port"
_SECURE: Final = "set redis_tls: true (rediss:// in a URL)"


class TLSRefused(RedisConnectionError):
    """No connection could be made, and trying again does not help. `fix` says what does."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix

    @classmethod
    def secure_port(cls, host: str, port: int) -> Self:
        """A server that was greeted without TLS, and has it."""
        return cls(f"Error connecting to {host}:{port}. The port expects TLS.", _SECURE)

    @classmethod
    def of(cls, error: RedisError) -> Self | None:
        """What a failed greeting means, where that is a fault of TLS that stays."""
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
    # An alert, where a reply was expected: redis-py says which byte it got.
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
    """The error, and those that it was made from."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


class TLSConnection(SSLConnection):
    """Ends with its `disconnect`, whatever the other side does.

    The orderly end of TLS waits for the peer's word, half a minute where none comes. A loop that
    ends meanwhile would leave the socket open.

    A Redis server without TLS may wait for more instead of answering the handshake: it takes it
    for the beginning of a command. So one that is silent is asked.
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
    """Whether a Redis server answers there without TLS."""
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
    """Whether a server answers there with TLS."""
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
    """For a handshake that only asks whether there is TLS: nothing is sent after it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
