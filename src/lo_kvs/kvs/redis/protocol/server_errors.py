"""What a server's refusals and a connection's faults mean: one table, by the server's code.

Whoever speaks to Redis asks `classify` what became of a command: the server said no
(`REFUSED`), it said "not now" and did nothing (`NOT_NOW`), or nobody can tell (`LOST`).
"""

from __future__ import annotations

import enum
import errno
import re
from collections.abc import Mapping, Sequence
from socket import gaierror
from typing import Final, NamedTuple

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    AuthenticationWrongNumberOfArgsError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from lo_kvs.kvs.errors import (
    ClusterDown,
    ConnectionLost,
    NoPrimary,
    NotPermitted,
    OutcomeUnknown,
    OutOfMemory,
    ReadOnlyServer,
    Refused,
    ServerBusy,
    ServerLoading,
    TimedOut,
    TLSFailed,
    TooFewReplicas,
    Unavailable,
)
from lo_kvs.kvs.redis.protocol.round_trips import ANSWERED, ProtocolMismatch
from lo_kvs.redis_connection import tls


class Verdict(enum.Enum):
    """What became of a command that got no proper answer."""

    REFUSED = "refused"  # nothing was done, and waiting does not help
    NOT_NOW = "not now"  # nothing was done, and waiting may help
    LOST = "lost"  # no answer came: what was sent may have been done


class Meaning(NamedTuple):
    """What a fault means, and what to do about it.

    verdict  whether it was done, and whether to try again
    kind     the error that callers get in the end
    remedy   what people can do
    drop     whether another connection may lead to a server that says something else
    """

    verdict: Verdict
    kind: type[Refused | Unavailable]
    remedy: str = ""
    drop: bool = False


_LOGIN: Final = "check redis_username and redis_password, and the server's ACL"
_MOVED: Final = "this server is a node of a cluster: connect to it as a cluster"
_REPLICA: Final = "name the primary in redis_connection, or an address that follows it"

#: By the code that begins a server's error. NOSCRIPT, MOVED, ASK and TRYAGAIN are mended by
#: those who can, the script and the cluster, item by item; what is said here is what it means
#: where that did not help.
MEANINGS: Final[Mapping[str, Meaning]] = {
    "OOM": Meaning(
        Verdict.REFUSED, OutOfMemory, "raise maxmemory or remove keys; reads go on working"
    ),
    "NOPERM": Meaning(Verdict.REFUSED, NotPermitted, "grant it in the server's ACL"),
    "NOAUTH": Meaning(Verdict.REFUSED, NotPermitted, _LOGIN),
    "WRONGPASS": Meaning(Verdict.REFUSED, NotPermitted, _LOGIN),
    "MISCONF": Meaning(Verdict.REFUSED, Refused, "see to the server's disk; reads go on working"),
    "NOSCRIPT": Meaning(Verdict.REFUSED, Refused, "the server does not keep scripts"),
    "MOVED": Meaning(Verdict.REFUSED, Refused, _MOVED, drop=True),
    "ASK": Meaning(Verdict.REFUSED, Refused, _MOVED, drop=True),
    "CROSSSLOT": Meaning(Verdict.REFUSED, Refused, _MOVED),
    "LOADING": Meaning(
        Verdict.NOT_NOW, ServerLoading, "wait until it has read its data, or raise redis_retry_for"
    ),
    "BUSY": Meaning(
        Verdict.NOT_NOW, ServerBusy, "end the script that blocks it (SCRIPT KILL, FUNCTION KILL)"
    ),
    "READONLY": Meaning(Verdict.NOT_NOW, ReadOnlyServer, _REPLICA, drop=True),
    "MASTERDOWN": Meaning(
        Verdict.NOT_NOW, NoPrimary, "bring the primary back, or promote a replica", drop=True
    ),
    "NOREPLICAS": Meaning(
        Verdict.NOT_NOW, TooFewReplicas, "bring replicas back, or lower min-replicas-to-write"
    ),
    "CLUSTERDOWN": Meaning(
        Verdict.NOT_NOW, ClusterDown, "bring the nodes of the missing slots back", drop=True
    ),
    "TRYAGAIN": Meaning(Verdict.NOT_NOW, ClusterDown, "wait until the slot has been moved"),
    # The server became a replica while a command waited there: it was begun.
    "UNBLOCKED": Meaning(Verdict.LOST, ReadOnlyServer, _REPLICA, drop=True),
}

_TIMED_OUT: Final = Meaning(
    Verdict.LOST, TimedOut, "see whether the server is up and has time, or raise redis_timeout"
)
_DISCONNECTED: Final = Meaning(
    Verdict.LOST, ConnectionLost, "is the server up, and does the port expect TLS (redis_tls)?"
)
#: By what the system said where no connection could be made.
_UNCONNECTED: Final[Mapping[int, Meaning]] = {
    errno.ECONNREFUSED: Meaning(
        Verdict.LOST, ConnectionLost, "is redis-server running on that port?"
    ),
    errno.ENOENT: Meaning(Verdict.LOST, ConnectionLost, "check redis_socket"),
    errno.EACCES: Meaning(
        Verdict.LOST, ConnectionLost, "check redis_socket, and the rights of that file"
    ),
}
_NO_HOST: Final = Meaning(Verdict.LOST, ConnectionLost, "check redis_host")
#: How asyncio says it where a host has several addresses, and each fails in its own way.
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_NO_PRIMARY: Final = Meaning(
    Verdict.NOT_NOW, NoPrimary, "see whether the Sentinels are up and agree", drop=True
)
_NO_SLOTS: Final = Meaning(
    Verdict.NOT_NOW, ClusterDown, "bring the nodes of the missing slots back", drop=True
)

_NOT_UNDERSTOOD: Final = Meaning(
    Verdict.LOST, ConnectionLost, "check that a Redis server has this address"
)

#: By the exception, where there is no code; the first that fits.
_WITHOUT_CODE: Final[Sequence[tuple[tuple[type[Exception], ...], Meaning]]] = (
    ((AuthenticationError, AuthenticationWrongNumberOfArgsError), MEANINGS["WRONGPASS"]),
    ((ResponseError,), Meaning(Verdict.REFUSED, Refused)),
    ((ProtocolMismatch,), _NOT_UNDERSTOOD),
    ((MasterNotFoundError,), _NO_PRIMARY),
    ((RedisClusterException,), _NO_SLOTS),
    ((TimeoutError, RedisTimeoutError), _TIMED_OUT),
)

#: What may come out of a call to redis-py. A peer's reset can surface as AttributeError or
#: TypeError (redis/redis-py#4287): the connection is lost all the same.
FAULTS: Final = (
    RedisError,
    RedisClusterException,
    OSError,
    EOFError,
    AttributeError,
    TypeError,
)


def code_of(error: BaseException) -> str:
    """The server's code (`OOM`), or "" where no server said anything with a code."""
    if not isinstance(error, ANSWERED):
        return ""
    code, words = error.status_code, str(error)
    # What a script may not do is told without a code of its own: Redis 6.2 and 7, and later.
    if "user executing the script can't run" in words or "ACL failure in script" in words:
        return "NOPERM"
    if not code:  # redis-py knows some codes only, and leaves the others in the text
        first = words.partition(" ")[0]
        code = first if first.isupper() and first.isalpha() else ""
    return code


def words_of(error: BaseException) -> str:
    """What the server said, beginning with its code, which redis-py cuts off some texts.

    For other faults the exception's type and text.
    """
    words = str(error)
    if not isinstance(error, ANSWERED):
        return f"{type(error).__name__}: {words}" if words else type(error).__name__
    code = error.status_code
    return words if not code or words.startswith(code) else f"{code} {words}"


def classify(error: BaseException) -> Meaning:
    """What `error`, one of `FAULTS`, means for the command that met it."""
    known = MEANINGS.get(code_of(error))
    if known is not None:
        return known
    if isinstance(error, tls.TLSRefused):
        return Meaning(Verdict.REFUSED, TLSFailed, error.fix)
    for kinds, meaning in _WITHOUT_CODE:
        if isinstance(error, kinds):
            return meaning
    return _unconnected(error)


def _unconnected(error: BaseException) -> Meaning:
    for cause in tls.causes_of(error):
        if isinstance(cause, gaierror):
            return _NO_HOST
        if isinstance(cause, OSError):
            numbers = {cause.errno} if cause.errno else {*map(int, _ERRNO.findall(str(cause)))}
            known = [_UNCONNECTED[number] for number in numbers if number in _UNCONNECTED]
            if len(known) == len(numbers) == 1:
                return known[0]
    return _DISCONNECTED


def lost_among(replies: Sequence[object]) -> Exception | None:
    """The first error among a server's replies after which the command may have been done."""
    errors = (ResponseError(str(reply)) for reply in replies if isinstance(reply, Exception))
    return next((error for error in errors if classify(error).verdict is Verdict.LOST), None)


def refused(place: str, error: Exception, *, unknown: bool = False) -> Refused | OutcomeUnknown:
    """What callers get when the server said no.

    unknown  an attempt before this one was lost, and may have been carried out
    """
    meaning = classify(error)
    if isinstance(error, tls.TLSRefused):
        words = f"{place} cannot be reached: {error}"
    else:
        words = f"{place} refused: {words_of(error)}"
    if meaning.remedy:
        words += f" ({meaning.remedy})"
    if unknown:
        words += "; an earlier attempt was lost, and may have been carried out"
        return OutcomeUnknown(words, code_of(error))
    kind = meaning.kind if issubclass(meaning.kind, Refused) else Refused
    return kind(words, code_of(error))


def gave_up(
    place: str, error: Exception, *, tried_s: float, tries: int, unknown: bool = False
) -> Unavailable | OutcomeUnknown:
    """What callers get when the deadline has passed, and `error` was the last fault."""
    meaning = classify(error)
    times = "one try" if tries == 1 else f"{tries} tries"
    words = (
        f"{place}: gave up after {tried_s:.3g} s and {times}, the last fault was "
        f"{words_of(error)} ({meaning.remedy})"
    )
    if unknown:
        return OutcomeUnknown(f"{words}; what was sent may have been done", code_of(error))
    kind = meaning.kind if issubclass(meaning.kind, Unavailable) else Unavailable
    return kind(words, code_of(error))


def overtaken(place: str, error: Exception | None, *, waited_s: float) -> Unavailable:
    """What a caller gets whose deadline passed while it waited behind another call.

    error     what the call before it met last; `None`: it has had no answer yet
    waited_s  for how long that call has been tried
    """
    fault = TimeoutError() if error is None else error
    meaning = classify(fault)
    words = f"{place}: the deadline passed behind a call that "
    if error is None:
        words += f"has had no answer for {waited_s:.3g} s"
    else:
        words += f"has failed for {waited_s:.3g} s; last error: {words_of(error)}"
    kind = meaning.kind if issubclass(meaning.kind, Unavailable) else Unavailable
    return kind(f"{words} ({meaning.remedy}). Nothing of this one was sent", code_of(fault))
