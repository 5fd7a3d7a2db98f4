"""Which server is the primary, asked of Sentinels: when a connection is opened, and now and then.

In between as well, as a failover that somebody asked for, or one of a primary that was only cut
off, leaves the old primary alive: for ten seconds and more it takes writes, which it forgets when
it becomes a replica. `redis_primary` has the connections that go where they are told.
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
#: What a Sentinel knows of each primary, by the name of its service: flags, address, epoch.
States: TypeAlias = dict[str, dict[str, str]]

#: Seconds after which a connection that is in use has the Sentinels asked again.
ASK_AGAIN_S: Final = 1.0
#: Flags of a primary that one Sentinel, or enough of them, do not reach.
DOWN: Final = frozenset({"s_down", "o_down"})


class Sentinels:
    """Some Sentinels, and the name under which they know a primary.

    options  for the connections to them: credentials, files of TLS, no retries
    timeout  seconds that one of them has to answer; synchronously, for each step of it
    tls      whether they expect TLS

    No connection to them outlives a question. Who answered is asked first the next time, so
    that a dead Sentinel costs its time-out once. The asynchronous part belongs to one event loop.
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
        self._epoch = 0  # of what is known: each failover has a higher one
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Where they are, never with which password: pools show what they pass on."""
        places = ", ".join(f"{host}:{port}" for host, port in self._addresses)
        return f"Sentinels({self._service} at {places})"

    async def primary(self, *, or_known: bool = False) -> Address:
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

    async def _ask(self, host: str, port: int) -> tuple[Address | None, States]:
        kind = SecureConnection if self._tls else Connection
        # Without time-outs of redis-py's own: see `redis_clients.client` about bounded ones.
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
            # It waits for nothing, so that whoever is cancelled, here as well, leaves nothing
            # open. A client's `aclose` does, if it is cancelled before its tasks have begun.
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
        # During a failover the first answer is the new one, and the state still the old one's.
        yield "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service
        yield "SENTINEL", "MASTERS"

    async def _ask_again(self) -> None:
        try:
            await self.primary(or_known=True)
        except RedisError as error:  # the connection that is open may do all the same
            logger.info("%r: %s", self, error)

    def _learn(self, host: str, port: int, found: Address) -> Address:
        self._addresses.sort(key=lambda address: address != (host, port))
        self._known = found
        return found


def _address(reply: list[bytes] | None) -> Address | None:
    """Host and port of a primary; `None` where the name is not known."""
    if reply is None:
        return None
    try:
        host, port = reply
        return host.decode(), int(port)
    except (AttributeError, TypeError, ValueError) as error:
        raise _nonsense("GET-MASTER-ADDR-BY-NAME") from error


def _states(reply: list[list[bytes]]) -> States:
    """What is known of each primary, by its name. Each comes as field, value, field, value."""
    try:
        states = [
            {
                field.decode(): value.decode()
                for field, value in zip(flat[::2], flat[1::2], strict=True)
            }
            for flat in reply
        ]
        # Every field that is used later is looked up here.
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
    return InvalidResponse(f"SENTINEL {question} has an answer that no Sentinel gives")


class _Answers:
    """What the Sentinels said to one question."""

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
            self._said.append(f"{host}:{port} knows no {self._service}")
        else:
            is_down = not DOWN.isdisjoint(state["flags"].split(","))
            if not is_down or at != (state["ip"], int(state["port"])):
                return at
            self._said.append(f"{host}:{port} holds {at[0]}:{at[1]} to be down")
        self._refused.append(False)
        return None

    def error(self) -> RedisError:
        words = f"no primary {self._service} is known: {'; '.join(self._said)}"
        insecure = [error for error in self._failed if isinstance(error, TLSRefused)]
        if insecure and len(insecure) == len(self._said):
            return TLSRefused(words, insecure[0].fix)
        kind = AuthenticationError if all(self._refused) else MasterNotFoundError
        return kind(words)
