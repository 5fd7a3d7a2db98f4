"""What is said to a server for a call, and what follows from its replies, without I/O.

A call is a generator of round trips: it yields a command, or several that leave together, is
sent their replies, and returns what they come to. Who drives it brings the connection:
`carrier` straight on a transport while all is well, `converse` on one of redis-py's.
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

#: What became of a call's changes, a letter each (`c` made, `n` conflict, `t` wrong type), and a
#: detail for each that was not made; `None` where only the record of a call made before told it.
Outcomes: TypeAlias = tuple[str, list[bytes | None] | None]


#: What a server answered, and redis-py raises.
ANSWERED: Final = (ResponseError, BusyLoadingError, AuthenticationError)


class RoundTrip(NamedTuple):
    """Commands as they are sent, and how many replies they have."""

    commands: bytes
    replies: int = 1


T = TypeVar("T")
#: An error of the server stands among the replies as an exception.
Rounds: TypeAlias = Generator[RoundTrip, Sequence[object], T]


class RawConnection(Protocol):
    """What is needed of a redis-py connection: commands, and one reply after another."""

    async def send_packed_command(
        self, command: list[bytes], check_health: bool = True
    ) -> None: ...

    async def read_response(self, *, disconnect_on_error: bool = True) -> Any: ...


async def converse(connection: RawConnection, rounds: Rounds[T]) -> T:
    """Have the whole conversation, on a connection of redis-py."""
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
    """The next reply; an error that the server answered is returned, as others follow it."""
    try:
        return await connection.read_response(disconnect_on_error=False)
    except ANSWERED as error:
        return error


def good(replies: Sequence[object]) -> Sequence[Any]:
    """The replies, where none is an error; else the first error is raised."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


class ProtocolMismatch(InvalidResponse):
    """A reply that our commands cannot have: it came from something else, or to something else.

    The message has the shape of the reply, not its content, which may be anybody's data.
    """

    def __init__(self, command: str, reply: object) -> None:
        super().__init__(f"{command} cannot be answered with {shape_of(reply)}")


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
