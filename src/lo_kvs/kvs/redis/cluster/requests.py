"""What is said to a node of a cluster, until it is answered: a key to read, a call to make.

A slot can move while a request is under way, so a request belongs to its slot, and whoever
serves the slot by now gets it. The calls that make changes are in `cluster_writer`.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from hiredis import pack_command

from lo_kvs.kvs.batching.deadlines import Turn
from lo_kvs.kvs.errors import KVSError, OutcomeUnknown, Unavailable, WrongType
from lo_kvs.kvs.redis.cluster.slots import Address
from lo_kvs.kvs.redis.protocol import server_errors
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, ProtocolMismatch, RawConnection, Rounds
from lo_kvs.kvs.redis.server.connection import Lookup

logger = logging.getLogger(__name__)


class Request(abc.ABC):
    """Something to say to whichever node serves a slot.

    writes    whether it changes anything; what does not can be asked again, whatever befalls it
    slot      the slot of all its keys
    since     when it was begun, by the event loop's clock
    deadline  when it is given up
    ask_at    a node that is to be asked this once (ASK); else the primary of the slot
    attempts  how often it was tried in vain, redirections included
    breaks    how often the connection broke after it was sent
    unsure    whether an attempt may have changed something that nobody told of
    fault     what befell the latest attempt
    unknown   how often a node did not know its script
    queue     the lane in which it waits, or the pipeline in which its answer is awaited
    timer     what will wake it, or give it up
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
        """Nothing has been tried yet."""
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
        """The command; with the script's text where `whole`, else with its digest.

        `None`: it takes several round trips, see `rounds`.
        """

    def rounds(self) -> Rounds[Outcomes]:
        """The conversation that it takes instead of one command."""
        raise NotImplementedError

    async def check(self, connection: RawConnection, place: str) -> None:  # noqa: B027 - most need none
        """Raises `Refused` or `Regroup` where the node cannot take that; nothing was sent."""

    def regroup(self) -> None:
        """What it has is too much for one conversation, and leaves in several."""
        raise NotImplementedError

    @property
    def breaks_max(self) -> int | None:
        """How often the connection may break after it was sent; `None`: ever so often."""
        return None

    @abc.abstractmethod
    def answered(self, reply: object, shortfall: KVSError | None = None) -> None:
        """The node gave this answer, or the conversation came to it.

        shortfall  what its changes lack to be safe
        """

    @abc.abstractmethod
    def failed(self, error: KVSError) -> None:
        """It will not be tried again."""

    def abandoned(self, place: str, error: BaseException) -> None:
        """The task that carried it was ended by `error`; it will not be tried again."""
        self.failed(self.dropped(place, error))

    def dropped(self, place: str, error: BaseException) -> KVSError:
        """What that comes to."""
        why = f"{place}: the task that carried it was ended by {error!r}"
        if self.maybe_applied:
            return OutcomeUnknown(f"{why}; what was sent may have been done")
        return Unavailable(f"{why}; nothing of it was sent")

    def refused(self, place: str, error: Exception) -> KVSError:
        """What a definite no comes to."""
        return server_errors.refused(place, error, unknown=self.maybe_applied)

    def misunderstood(self, error: Exception) -> KVSError:
        """The error for an answer that cannot be one."""
        return OutcomeUnknown(f"a commit failed: {error!r}")

    def cancel_timer(self) -> None:
        """No timer runs for it any more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class RequestSender(Protocol):
    """What requests need of the traffic that they are part of."""

    @property
    def try_for_s(self) -> float:
        """How many seconds a request is tried for."""

    @property
    def turn(self) -> Turn:
        """How long a request is tried at least."""

    def begun(self) -> None:
        """There is one more that will be answered."""

    def finished(self) -> None:
        """One of them has been answered."""

    def send(self, request: Request, deadline: float | None = None) -> None:
        """Send it, as a new request, to whichever node serves its slot.

        The deadline is as in `Store.read`.
        """

    def unsent(self, request: Request) -> KVSError:
        """What those are told who waited behind a request until their time was up."""

    def read_name(
        self, name: bytes, slot: int, done: Callable[[Lookup], object], deadline: float
    ) -> None:
        """Read what is stored under a name; `done` is called then."""

    def key_of(self, name: bytes) -> str | None:
        """The key that has this name."""


class KeyRead(Request):
    """One key to read, by a plain GET."""

    __slots__ = ("_done", "_key", "_name", "_traffic")

    writes = False

    def __init__(
        self,
        traffic: RequestSender,
        key: str,
        name: bytes,
        slot: int,
        done: Callable[[Lookup], object],
    ) -> None:
        super().__init__(slot)
        self._traffic, self._key, self._name, self._done = traffic, key, name, done
        traffic.begun()

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
            logger.exception("a callback of a read failed; the others go on")
        finally:
            self._traffic.finished()

    def misunderstood(self, error: Exception) -> KVSError:
        return KVSError(f"reading failed: {error!r}")

    def refused(self, place: str, error: Exception) -> KVSError:
        if server_errors.words_of(error).startswith("WRONGTYPE"):
            return WrongType(self._key)
        return super().refused(place, error)
