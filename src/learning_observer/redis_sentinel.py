"""The way to a primary that Sentinels know: asked for whenever a connection is opened.

It is asked for now and then as well, while a connection is in use. A failover that somebody
asked for, or one of a primary that was only cut off, leaves the old primary alive: for ten
seconds and more it takes writes, which it forgets when it becomes a replica.

redis-py's own pool for Sentinel does not ask on the way, raises where all connections are busy,
keeps connections to the Sentinels open, and turns READONLY into a lost connection, so that a
write which the server refused would count as one with an unknown outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

import redis.asyncio.connection
import redis.connection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.sentinel import MasterNotFoundError

from learning_observer.redis_tls import TLSConnection

logger = logging.getLogger(__name__)

#: Seconds after which a connection that is in use has the Sentinels asked again.
ASK_AGAIN_S: Final = 1.0


class Sentinels:
    """Some Sentinels, and the name under which they know a primary.

    options  for the connections to them: credentials, TLS, time-outs, no retries

    No connection to them outlives a question. Who answered is asked first the next time, so
    that a dead Sentinel costs its time-out once. The asynchronous part belongs to one event loop.
    """

    def __init__(
        self, addresses: Sequence[tuple[str, int]], service: str, options: Mapping[str, Any]
    ) -> None:
        self._addresses = list(addresses)
        self._service = service
        self._options = dict(options)
        self._known: tuple[str, int] | None = None
        self._epoch = 0  # of what is known: each failover has a higher one
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Where they are, never with which password: pools show what they pass on."""
        places = ", ".join(f"{host}:{port}" for host, port in self._addresses)
        return f"Sentinels({self._service} at {places})"

    async def primary(self, *, or_known: bool = False) -> tuple[str, int]:
        """Host and port of the primary now.

        or_known  an answer that is older than what is known counts for nothing: a Sentinel that
                  was cut off tells of a primary that is one no more

        Raises MasterNotFoundError where no Sentinel knows a primary that is up, and
        AuthenticationError where all of them refuse to tell.
        """
        self._asked_at = asyncio.get_running_loop().time()
        answers = _Answers(self._service)
        for host, port in list(self._addresses):
            try:
                async with redis.asyncio.Redis(host=host, port=port, **self._options) as sentinel:
                    # During a failover this is the new one, and the state still the old one's.
                    at = await sentinel.sentinel_get_master_addr_by_name(self._service)
                    states: Any = await sentinel.sentinel_masters()
            except (RedisError, OSError) as error:
                answers.failed(host, port, error)
            else:
                if (found := answers.found(host, port, at, states)) is not None:
                    epoch = int(states[self._service]["config-epoch"])
                    if or_known and self._known is not None and epoch < self._epoch:
                        return self._known
                    self._epoch = epoch
                    return self._learn(host, port, found)
        raise answers.error()

    def primary_blocking(self) -> tuple[str, int]:
        """The same, synchronously."""
        answers = _Answers(self._service)
        for host, port in list(self._addresses):
            try:
                with redis.Redis(host=host, port=port, **self._options) as sentinel:
                    at = sentinel.sentinel_get_master_addr_by_name(self._service)
                    states: Any = sentinel.sentinel_masters()
            except (RedisError, OSError) as error:
                answers.failed(host, port, error)
            else:
                if (found := answers.found(host, port, at, states)) is not None:
                    return self._learn(host, port, found)
        raise answers.error()

    async def have_moved(self, host: str, port: int) -> bool:
        """Whether the primary is known to be elsewhere.

        A connection in steady use has the Sentinels asked on the side; one that was idle waits
        for their answer. Where there is none, the primary has not moved.
        """
        loop = asyncio.get_running_loop()
        age_s = loop.time() - self._asked_at
        if age_s > 2 * ASK_AGAIN_S:
            await self._ask_again()
        elif age_s > ASK_AGAIN_S and (self._asking is None or self._asking.done()):
            self._asking = loop.create_task(self._ask_again())
        return self._known is not None and self._known != (host, port)

    def stop_asking(self) -> None:
        """End a question that is under way on the side."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask_again(self) -> None:
        try:
            await self.primary(or_known=True)
        except RedisError as error:  # the connection that is open may do all the same
            logger.info("%r: %s", self, error)

    def _learn(self, host: str, port: int, found: tuple[str, int]) -> tuple[str, int]:
        self._addresses.sort(key=lambda address: address != (host, port))
        self._known = found
        return found


class _Answers:
    """What the Sentinels said to one question."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._said: list[str] = []
        self._refused: list[bool] = []

    def failed(self, host: str, port: int, error: Exception) -> None:
        self._said.append(f"{host}:{port}: {type(error).__name__}: {error}")
        self._refused.append(isinstance(error, AuthenticationError | ResponseError))

    def found(self, host: str, port: int, at: Any, states: Any) -> tuple[str, int] | None:
        state = states.get(self._service)
        if at is None or state is None:
            self._said.append(f"{host}:{port} knows no {self._service}")
        else:
            name, number = at
            found = name.decode() if isinstance(name, bytes) else str(name), int(number)
            is_down = state["is_sdown"] or state["is_odown"]
            if not is_down or found != (state["ip"], state["port"]):
                return found
            self._said.append(f"{host}:{port} holds {found[0]}:{found[1]} to be down")
        self._refused.append(False)
        return None

    def error(self) -> RedisError:
        kind = AuthenticationError if all(self._refused) else MasterNotFoundError
        return kind(f"no primary {self._service} is known: {'; '.join(self._said)}")


class PrimaryConnection(redis.asyncio.connection.Connection):
    """A connection that goes where the Sentinels say, and leaves when they say otherwise."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = await self._sentinels.primary()
        await super().connect()  # type: ignore[no-untyped-call]

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        # Before anything of this command is sent: no reply is under way, so none is lost.
        if self.is_connected and await self._sentinels.have_moved(str(self.host), self.port):
            await self.disconnect(nowait=True)
            await self.connect()
        await super().send_packed_command(command, check_health)

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        self._sentinels.stop_asking()
        await super().disconnect(*args, **kwargs)


class PrimaryTLSConnection(PrimaryConnection, TLSConnection):
    """The same, with TLS."""


class BlockingPrimaryConnection(redis.connection.Connection):
    """A connection that goes where the Sentinels say when it is opened, synchronously."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]
        self._sentinels = sentinels

    def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = self._sentinels.primary_blocking()
        super().connect()  # type: ignore[no-untyped-call]


class BlockingPrimaryTLSConnection(BlockingPrimaryConnection, redis.connection.SSLConnection):
    """The same, with TLS."""


def connection_class(module: ModuleType, *, tls: bool) -> type[Any]:
    """The class for pools of `redis.asyncio.connection`, or of its twin `redis.connection`."""
    if module is redis.asyncio.connection:
        return PrimaryTLSConnection if tls else PrimaryConnection
    return BlockingPrimaryTLSConnection if tls else BlockingPrimaryConnection
