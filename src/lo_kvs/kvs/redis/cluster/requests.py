"""Request: something to send to the node of a slot until it is answered; `KeyRead` reads a key.

A slot can move while a request is in flight. So a request belongs to a slot, and is sent to the
node that currently serves it. The requests that write are in `slot_writer`.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from hiredis import pack_command

from lo_kvs.kvs.batching.deadlines import RetryFloor
from lo_kvs.kvs.errors import KVSError, OutcomeUnknown, Unavailable, WrongType
from lo_kvs.kvs.redis.cluster.slots import Address
from lo_kvs.kvs.redis.protocol import server_errors
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, ProtocolMismatch, RawConnection, Rounds
from lo_kvs.kvs.redis.server.connection import Lookup

logger = logging.getLogger(__name__)


class Request(abc.ABC):
    """A request to the node that serves a slot.

    writes          whether it changes data; reads can always be repeated
    slot            the slot of all its keys
    since           when it started, in the event loop's time
    deadline        when it fails
    ask_at          the node for the next attempt (ASK); otherwise the primary of the slot
    attempts        the number of failed attempts, including redirections
    breaks          how often the connection broke after it was sent
    maybe_applied   whether an attempt without reply may have been executed
    fault           the error of the latest attempt
    noscript_count  how often a node did not know its script
    queue           the NodePipeline in which it waits, or the list of requests in flight
    timer           the timer for its retry or its deadline
    """

    __slots__ = (
        "ask_at",
        "attempts",
        "breaks",
        "deadline",
        "fault",
        "maybe_applied",
        "noscript_count",
        "queue",
        "since",
        "slot",
        "timer",
    )

    writes: ClassVar[bool]

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.queue: object = None
        self.begin(0.0, 0.0)

    def begin(self, since: float, deadline: float) -> None:
        """Start as a new request, without attempts."""
        self.since = since
        self.deadline = deadline
        self.ask_at: Address | None = None
        self.attempts = 0
        self.breaks = 0
        self.maybe_applied = False
        self.noscript_count = 0
        self.fault: Exception | None = None
        self.timer: asyncio.TimerHandle | None = None

    @abc.abstractmethod
    def packed(self, *, whole: bool) -> bytes | None:
        """The command, with the script's text if `whole`, otherwise with its digest.

        `None`: it takes several round trips, see `rounds`.
        """

    def rounds(self) -> Rounds[Outcomes]:
        """The round trips that it takes instead of a single command."""
        raise NotImplementedError

    async def check(self, connection: RawConnection, place: str) -> None:  # noqa: B027 - most need none
        """Raises `Refused` or `Regroup` if the node cannot accept it; nothing was sent."""

    def regroup(self) -> None:
        """Split its changes into several calls, because one would be too large."""
        raise NotImplementedError

    @property
    def breaks_max(self) -> int | None:
        """How often the connection may break after it was sent; `None`: no limit."""
        return None

    @abc.abstractmethod
    def answered(self, reply: object, shortfall: KVSError | None = None) -> None:
        """It was answered with this reply, or with the result of its round trips.

        shortfall  the error if its changes are not durable in time
        """

    @abc.abstractmethod
    def failed(self, error: KVSError) -> None:
        """It failed and will not be retried."""

    def abandoned(self, place: str, error: BaseException) -> None:
        """The sending task ended with `error`; the request will not be retried."""
        self.failed(self.dropped(place, error))

    def dropped(self, place: str, error: BaseException) -> KVSError:
        """The error for callers if the sending task ended."""
        why = f"{place}: the sending task ended with {error!r}"
        if self.maybe_applied:
            return OutcomeUnknown(f"{why}. The command may have been executed")
        return Unavailable(f"{why}. This call was not sent")

    def refused(self, place: str, error: Exception) -> KVSError:
        """The error for callers if the server refused it."""
        return server_errors.refused(place, error, unknown=self.maybe_applied)

    def misunderstood(self, error: Exception) -> KVSError:
        """The error for callers after an invalid reply."""
        return OutcomeUnknown(f"a commit failed: {error!r}")

    def cancel_timer(self) -> None:
        """Cancel its timer, if there is one."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class RequestSender(Protocol):
    """What a request needs of the cluster client."""

    @property
    def try_for_s(self) -> float:
        """How many seconds a request is retried."""

    @property
    def retry_floor(self) -> RetryFloor:
        """The minimum time a request is retried."""

    def begun(self) -> None:
        """Count a request that will be answered."""

    def finished(self) -> None:
        """A request has been answered."""

    def send(self, request: Request, deadline: float | None = None) -> None:
        """Send it as a new request to the node that serves its slot.

        For `deadline`, see `Store.read`.
        """

    def unsent(self, request: Request) -> KVSError:
        """The error for changes whose deadline passed while they were queued behind `request`."""

    def read_name(
        self, name: bytes, slot: int, done: Callable[[Lookup], object], deadline: float
    ) -> None:
        """Read the value of a name in Redis, then call `done`."""

    def key_of(self, name: bytes) -> str | None:
        """The key with this name."""


class KeyRead(Request):
    """Reads one key with GET."""

    __slots__ = ("_client", "_done", "_key", "_name")

    writes = False

    def __init__(
        self,
        client: RequestSender,
        key: str,
        name: bytes,
        slot: int,
        done: Callable[[Lookup], object],
    ) -> None:
        super().__init__(slot)
        self._client, self._key, self._name, self._done = client, key, name, done
        client.begun()

    def packed(self, *, whole: bool) -> bytes:
        words: Any = ("GET", self._name)  # hiredis's stub takes tuples of one item only
        return bytes(pack_command(words))

    def answered(self, reply: object, shortfall: KVSError | None = None) -> None:
        if reply is not None and not isinstance(reply, bytes):
            raise ProtocolMismatch("GET", reply)
        self._finish(reply)

    def failed(self, error: KVSError) -> None:
        self._finish(error)

    def _finish(self, found: Lookup) -> None:
        try:
            self._done(found)
        except Exception:
            logger.exception("a callback of a read failed; the others still run")
        finally:
            self._client.finished()

    def misunderstood(self, error: Exception) -> KVSError:
        return KVSError(f"reading failed: {error!r}")

    def refused(self, place: str, error: Exception) -> KVSError:
        if server_errors.words_of(error).startswith("WRONGTYPE"):
            return WrongType(self._key)
        return super().refused(place, error)
