"""The way to a primary that Sentinels know: asked for anew whenever a connection is opened.

redis-py's own pool for Sentinel raises where all connections are busy, keeps connections to the
Sentinels open, and turns READONLY into a lost connection, so that a write which the server
refused would count as one with an unknown outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import redis.asyncio.connection
import redis.connection
from redis.exceptions import AuthenticationError, RedisError, ResponseError
from redis.sentinel import MasterNotFoundError


class Sentinels:
    """Some Sentinels, and the name under which they know a primary.

    options  for the connections to them: credentials, TLS, time-outs, no retries

    No connection to them outlives a question. Who answered is asked first the next time, so
    that a dead Sentinel costs its time-out once.
    """

    def __init__(
        self, addresses: Sequence[tuple[str, int]], service: str, options: Mapping[str, Any]
    ) -> None:
        self._addresses = list(addresses)
        self._service = service
        self._options = dict(options)

    def __repr__(self) -> str:
        """Where they are, never with which password: pools show what they pass on."""
        places = ", ".join(f"{host}:{port}" for host, port in self._addresses)
        return f"Sentinels({self._service} at {places})"

    async def primary(self) -> tuple[str, int]:
        """Host and port of the primary now.

        Raises MasterNotFoundError where no Sentinel knows a primary that is up, and
        AuthenticationError where all of them refuse to tell.
        """
        answers = _Answers(self._service)
        for host, port in list(self._addresses):
            try:
                async with redis.asyncio.Redis(host=host, port=port, **self._options) as sentinel:
                    states = await sentinel.sentinel_masters()
            except (RedisError, OSError) as error:
                answers.failed(host, port, error)
            else:
                found = answers.found(host, port, states)
                if found is not None:
                    self._prefer(host, port)
                    return found
        raise answers.error()

    def primary_blocking(self) -> tuple[str, int]:
        """The same, synchronously."""
        answers = _Answers(self._service)
        for host, port in list(self._addresses):
            try:
                with redis.Redis(host=host, port=port, **self._options) as sentinel:
                    states: Any = sentinel.sentinel_masters()
            except (RedisError, OSError) as error:
                answers.failed(host, port, error)
            else:
                found = answers.found(host, port, states)
                if found is not None:
                    self._prefer(host, port)
                    return found
        raise answers.error()

    def _prefer(self, host: str, port: int) -> None:
        self._addresses.sort(key=lambda address: address != (host, port))


class _Answers:
    """What the Sentinels said to one question."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._said: list[str] = []
        self._refused: list[bool] = []

    def failed(self, host: str, port: int, error: Exception) -> None:
        self._said.append(f"{host}:{port}: {type(error).__name__}: {error}")
        self._refused.append(isinstance(error, AuthenticationError | ResponseError))

    def found(self, host: str, port: int, states: Any) -> tuple[str, int] | None:
        state = states.get(self._service)
        if state is None:
            self._said.append(f"{host}:{port} knows no {self._service}")
        elif state["is_sdown"] or state["is_odown"] or not state["is_master"]:
            self._said.append(f"{host}:{port} holds {state['ip']}:{state['port']} to be down")
        else:
            return str(state["ip"]), int(state["port"])
        self._refused.append(False)
        return None

    def error(self) -> RedisError:
        kind = AuthenticationError if all(self._refused) else MasterNotFoundError
        return kind(f"no primary {self._service} is known: {'; '.join(self._said)}")


class PrimaryConnection(redis.asyncio.connection.Connection):
    """A connection that asks the Sentinels where to connect, each time that it is opened."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def connect(self) -> None:
        if not self.is_connected:
            self.host, self.port = await self._sentinels.primary()
        await super().connect()  # type: ignore[no-untyped-call]


class PrimaryTLSConnection(PrimaryConnection, redis.asyncio.connection.SSLConnection):
    """The same, with TLS."""


class BlockingPrimaryConnection(redis.connection.Connection):
    """The same, synchronously."""

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
