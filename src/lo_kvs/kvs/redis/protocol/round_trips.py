"""Round trips: a call to Redis as a generator of commands and replies, without I/O.

A call yields one command, or several that are sent together, receives their replies, and returns
its result. The caller provides the connection: `dispatcher` writes to a transport directly,
`converse` uses a redis-py connection.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    ResponseError,
)

#: The outcome of a call: a letter for each change (`c` made, `n` conflict, `t` wrong type), and a
#: detail for each that was not made (`None`: not known, the call's record has only the letters).
Outcomes: TypeAlias = tuple[str, list[bytes | None] | None]


#: The exceptions that redis-py raises for error replies.
ANSWERED: Final = (ResponseError, BusyLoadingError, AuthenticationError)


class RoundTrip(NamedTuple):
    """The bytes of commands, and the number of their replies."""

    commands: bytes
    replies: int = 1


T = TypeVar("T")
#: An error reply is an exception among the replies.
Rounds: TypeAlias = Generator[RoundTrip, Sequence[object], T]


class RawConnection(Protocol):
    """The methods of a redis-py connection that are needed: send commands, read replies."""

    async def send_packed_command(
        self, command: list[bytes], check_health: bool = True
    ) -> None: ...

    async def read_response(self, *, disconnect_on_error: bool = True) -> Any: ...


async def converse(connection: RawConnection, rounds: Rounds[T]) -> T:
    """Run all round trips on a redis-py connection; return the result."""
    replies: Sequence[object] = ()
    while True:
        try:
            trip = rounds.send(replies) if replies else next(rounds)
        except StopIteration as finished:
            result: T = finished.value
            return result
        await connection.send_packed_command([trip.commands], check_health=False)
        replies = [await reply_on(connection) for _ in range(trip.replies)]


async def reply_on(connection: RawConnection) -> object:
    """The next reply. An error reply is returned, not raised, because other replies follow."""
    try:
        return await connection.read_response(disconnect_on_error=False)
    except ANSWERED as error:
        return error


def good(replies: Sequence[object]) -> Sequence[Any]:
    """The replies. Raises the first one that is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


class ProtocolMismatch(InvalidResponse):
    """A reply that does not fit the command: it is not from Redis, or not for this command.

    The message has the type and size of the reply, not its content, which may be private data.
    """

    def __init__(self, command: str, reply: object) -> None:
        super().__init__(f"unexpected reply to {command}: {shape_of(reply)}")


def shape_of(reply: object) -> str:
    """The type and size of a reply, in words."""
    match reply:
        case None:
            return "nil"
        case bytes() | str():
            return f"text of {len(reply)} bytes"
        case Exception():
            return "an error"
        case list() | tuple() | set() | frozenset() | dict():
            return f"{type(reply).__name__} of {len(reply)}"
        case _:
            return type(reply).__name__
