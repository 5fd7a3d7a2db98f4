"""Sentinels: asks Sentinels for the primary, when a connection is opened and periodically.

Asking periodically is needed because the old primary stays alive after a manual failover, or if
it was only cut off: for ten seconds and more it accepts writes, which are lost when it becomes a
replica. The connections that use this are in `sentinel_connections`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError
from redis.sentinel import MasterNotFoundError

from lo_kvs.redis_connection.handshake import (
    BlockingConnection,
    BlockingSecureConnection,
    Connection,
    Handshake,
    SecureConnection,
)
from lo_kvs.redis_connection.tls import TLSRefused

logger = logging.getLogger(__name__)

#: Host and port.
Address: TypeAlias = tuple[str, int]
#: A Sentinel's state of each primary, by the name of its service: flags, address, epoch.
States: TypeAlias = dict[str, dict[str, str]]

#: Seconds after which a connection in use asks the Sentinels again.
ASK_AGAIN_S: Final = 1.0
#: Flags of a primary that one Sentinel, or enough of them, cannot reach.
DOWN: Final = frozenset({"s_down", "o_down"})


class Sentinels:
    """Some Sentinels, and the service name of a primary.

    options  for the connections to them: credentials, TLS files, no retries
    timeout  seconds that one of them has to answer; if synchronous, for each step
    tls      whether they expect TLS

    Connections to them are closed after each question. The Sentinel that answered is asked first
    the next time, so a dead Sentinel costs its time-out only once. The asynchronous methods belong
    to one event loop.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        service: str,
        options: Mapping[str, Any],
        *,
        timeout: float,
        tls: bool = False,
    ) -> None:
        self._addresses = list(addresses)
        self._service = service
        # RESP2: no HELLO before the questions, and one shape of replies.
        self._options = {**options, "handshake": Handshake(protocol=2)}
        self._timeout = timeout
        self._tls = tls
        self._known: Address | None = None
        self._epoch = 0  # of the known primary; each failover increments it
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Their addresses without passwords, because pools show their options."""
        places = ", ".join(f"{host}:{port}" for host, port in self._addresses)
        return f"Sentinels({self._service} at {places})"

    async def primary(self, *, or_known: bool = False) -> Address:
        """Host and port of the current primary.

        or_known  ignore an answer that is older than the known one: a Sentinel that was cut off
                  may report a former primary

        Raises MasterNotFoundError if no Sentinel knows a primary that is up, and
        AuthenticationError if all of them refuse to answer.
        """
        self._asked_at = asyncio.get_running_loop().time()
        answers = _Answers(self._service)
        for host, port in list(self._addresses):
            try:
                at, states = await self._ask(host, port)
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

    def primary_blocking(self) -> Address:
        """The same, synchronously."""
        answers = _Answers(self._service)
        for host, port in list(self._addresses):
            try:
                at, states = self._ask_blocking(host, port)
            except (RedisError, OSError) as error:
                answers.failed(host, port, error)
            else:
                if (found := answers.found(host, port, at, states)) is not None:
                    return self._learn(host, port, found)
        raise answers.error()

    async def have_moved(self, host: str, port: int) -> bool:
        """Whether another server is known to be the primary.

        For a connection in steady use, the Sentinels are asked in the background; for one that was
        idle, this waits for their answer. Without an answer, the primary has not moved.
        """
        loop = asyncio.get_running_loop()
        age_s = loop.time() - self._asked_at
        if age_s > 2 * ASK_AGAIN_S:
            await self._ask_again()
        elif age_s > ASK_AGAIN_S and (self._asking is None or self._asking.done()):
            self._asking = loop.create_task(self._ask_again())
        return self._known is not None and self._known != (host, port)

    def stop_asking(self) -> None:
        """Cancel a question in the background."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self, host: str, port: int) -> tuple[Address | None, States]:
        kind = SecureConnection if self._tls else Connection
        # Without redis-py's own time-outs: see `bounded` in `factory.client`.
        connection = kind(
            host=host,
            port=port,
            socket_timeout=None,
            socket_connect_timeout=self._timeout,
            **self._options,
        )
        replies: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout):
                await connection.connect()
                for question in self._questions():
                    await connection.send_command(*question)
                    replies.append(await connection.read_response())
        except TimeoutError as error:
            raise TimeoutError(f"no answer within {self._timeout:.3g} s") from error
        finally:
            # This does not wait, so nothing stays open if the caller is cancelled. A client's
            # `aclose` leaves connections open if it is cancelled before its tasks have started.
            await connection.disconnect(nowait=True)
        return _address(replies[0]), _states(replies[1])

    def _ask_blocking(self, host: str, port: int) -> tuple[Address | None, States]:
        kind = BlockingSecureConnection if self._tls else BlockingConnection
        connection: Any = kind(
            host=host,
            port=port,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            **self._options,
        )
        replies: list[Any] = []
        try:
            connection.connect()
            for question in self._questions():
                connection.send_command(*question)
                replies.append(connection.read_response())
        finally:
            connection.disconnect()
        return _address(replies[0]), _states(replies[1])

    def _questions(self) -> Iterator[tuple[str, ...]]:
        # During a failover, the first answer is the new primary, and the state is still the old.
        yield "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service
        yield "SENTINEL", "MASTERS"

    async def _ask_again(self) -> None:
        try:
            await self.primary(or_known=True)
        except RedisError as error:  # the open connection may still work
            logger.info("%r: %s", self, error)

    def _learn(self, host: str, port: int, found: Address) -> Address:
        self._addresses.sort(key=lambda address: address != (host, port))
        self._known = found
        return found


def _address(reply: list[bytes] | None) -> Address | None:
    """Host and port of a primary; `None` if the name is not known."""
    if reply is None:
        return None
    try:
        host, port = reply
        return host.decode(), int(port)
    except (AttributeError, TypeError, ValueError) as error:
        raise _nonsense("GET-MASTER-ADDR-BY-NAME") from error


def _states(reply: list[list[bytes]]) -> States:
    """The state of each primary, by its name. Each is a list of field, value, field, value."""
    try:
        states = [
            {
                field.decode(): value.decode()
                for field, value in zip(flat[::2], flat[1::2], strict=True)
            }
            for flat in reply
        ]
        # Access every field that is used later, to detect missing ones.
        return {
            state["name"]: state
            for state in states
            if state["flags"]
            and state["ip"]
            and int(state["port"])
            and int(state["config-epoch"]) >= 0
        }
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise _nonsense("MASTERS") from error


def _nonsense(question: str) -> InvalidResponse:
    return InvalidResponse(f"SENTINEL {question}: the reply is not from a Sentinel")


class _Answers:
    """The answers of the Sentinels to one question."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._said: list[str] = []
        self._refused: list[bool] = []
        self._failed: list[Exception] = []

    def failed(self, host: str, port: int, error: Exception) -> None:
        self._said.append(f"{host}:{port}: {type(error).__name__}: {error}")
        self._refused.append(isinstance(error, AuthenticationError | ResponseError))
        self._failed.append(error)

    def found(self, host: str, port: int, at: Address | None, states: States) -> Address | None:
        state = states.get(self._service)
        if at is None or state is None:
            self._said.append(f"{host}:{port} does not know {self._service}")
        else:
            is_down = not DOWN.isdisjoint(state["flags"].split(","))
            if not is_down or at != (state["ip"], int(state["port"])):
                return at
            self._said.append(f"{host}:{port} reports {at[0]}:{at[1]} as down")
        self._refused.append(False)
        return None

    def error(self) -> RedisError:
        words = f"no known primary for {self._service}: {'; '.join(self._said)}"
        insecure = [error for error in self._failed if isinstance(error, TLSRefused)]
        if insecure and len(insecure) == len(self._said):
            return TLSRefused(words, insecure[0].fix)
        kind = AuthenticationError if all(self._refused) else MasterNotFoundError
        return kind(words)
