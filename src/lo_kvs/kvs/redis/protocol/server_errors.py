"""Error classification: one table from server error codes and connection errors to their meaning.

`classify` returns what happened to a command: the server refused it (`REFUSED`), the server did
nothing but a retry may help (`NOT_NOW`), or its outcome is unknown (`LOST`).
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
    """What happened to a command that got an error or no reply."""

    REFUSED = "refused"  # it was not executed, and a retry does not help
    NOT_NOW = "not now"  # it was not executed, and a retry may help
    LOST = "lost"  # there was no reply: it may have been executed


class Meaning(NamedTuple):
    """The meaning of an error, and what to do about it.

    verdict  whether the command was executed, and whether a retry may help
    kind     the exception that callers get in the end
    remedy   the hint in the message
    drop     whether to reconnect, because that may lead to another server
    """

    verdict: Verdict
    kind: type[Refused | Unavailable]
    remedy: str = ""
    drop: bool = False


_LOGIN: Final = "check redis_username and redis_password, and the server's ACL"
_MOVED: Final = "this server is a node of a cluster: connect to it as a cluster"
_REPLICA: Final = "name the primary in redis_connection, or an address that follows it"

#: By the code at the start of a server's error. NOSCRIPT, MOVED, ASK and TRYAGAIN are handled by
#: the script and the cluster client; the entries here apply if that did not help.
MEANINGS: Final[Mapping[str, Meaning]] = {
    "OOM": Meaning(
        Verdict.REFUSED, OutOfMemory, "raise maxmemory or remove keys; reads still work"
    ),
    "NOPERM": Meaning(Verdict.REFUSED, NotPermitted, "grant it in the server's ACL"),
    "NOAUTH": Meaning(Verdict.REFUSED, NotPermitted, _LOGIN),
    "WRONGPASS": Meaning(Verdict.REFUSED, NotPermitted, _LOGIN),
    "MISCONF": Meaning(Verdict.REFUSED, Refused, "check the server's disk; reads still work"),
    "NOSCRIPT": Meaning(Verdict.REFUSED, Refused, "the server does not store scripts"),
    "MOVED": Meaning(Verdict.REFUSED, Refused, _MOVED, drop=True),
    "ASK": Meaning(Verdict.REFUSED, Refused, _MOVED, drop=True),
    "CROSSSLOT": Meaning(Verdict.REFUSED, Refused, _MOVED),
    "LOADING": Meaning(
        Verdict.NOT_NOW,
        ServerLoading,
        "wait until it has loaded its data, or raise redis_retry_for",
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
    # The server became a replica while a command was blocked there: it had started.
    "UNBLOCKED": Meaning(Verdict.LOST, ReadOnlyServer, _REPLICA, drop=True),
}

_TIMED_OUT: Final = Meaning(
    Verdict.LOST, TimedOut, "check that the server is up and not overloaded, or raise redis_timeout"
)
_DISCONNECTED: Final = Meaning(Verdict.LOST, ConnectionLost, "is the server up and reachable?")
_CLOSED: Final = Meaning(Verdict.LOST, ConnectionLost, "does the port expect TLS (redis_tls)?")
#: By the system's error number, if no connection could be made.
_UNCONNECTED: Final[Mapping[int, Meaning]] = {
    errno.ECONNREFUSED: Meaning(
        Verdict.LOST, ConnectionLost, "is redis-server running on that port?"
    ),
    errno.ENOENT: Meaning(Verdict.LOST, ConnectionLost, "check redis_socket"),
    errno.EACCES: Meaning(
        Verdict.LOST, ConnectionLost, "check redis_socket, and the permissions of that file"
    ),
}
_NO_HOST: Final = Meaning(Verdict.LOST, ConnectionLost, "check redis_host")
#: asyncio's text if a host has several addresses and each fails in a different way.
_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")
_NO_PRIMARY: Final = Meaning(
    Verdict.NOT_NOW, NoPrimary, "check that the Sentinels are up and agree", drop=True
)
_NO_SLOTS: Final = Meaning(
    Verdict.NOT_NOW, ClusterDown, "bring the nodes of the missing slots back", drop=True
)

_NOT_UNDERSTOOD: Final = Meaning(
    Verdict.LOST, ConnectionLost, "check that this is the address of a Redis server"
)

#: By the type of the exception, if it has no code; the first match applies.
_WITHOUT_CODE: Final[Sequence[tuple[tuple[type[Exception], ...], Meaning]]] = (
    ((AuthenticationError, AuthenticationWrongNumberOfArgsError), MEANINGS["WRONGPASS"]),
    ((ResponseError,), Meaning(Verdict.REFUSED, Refused)),
    ((ProtocolMismatch,), _NOT_UNDERSTOOD),
    ((MasterNotFoundError,), _NO_PRIMARY),
    ((RedisClusterException,), _NO_SLOTS),
    ((TimeoutError, RedisTimeoutError), _TIMED_OUT),
)

#: redis-py's text if the server closes a connection.
CLOSED: Final = "Connection closed by server."
#: The exceptions that a call to redis-py may raise. A connection reset can appear as
#: AttributeError or TypeError (redis/redis-py#4287).
FAULTS: Final = (
    RedisError,
    RedisClusterException,
    OSError,
    EOFError,
    AttributeError,
    TypeError,
)


def code_of(error: BaseException) -> str:
    """The server's error code (`OOM`), or "" if there is none."""
    if not isinstance(error, ANSWERED):
        return ""
    code, words = error.status_code, str(error)
    # Redis 6.2 and later report a missing permission of a script without a code.
    if "user executing the script can't run" in words or "ACL failure in script" in words:
        return "NOPERM"
    if not code:  # redis-py knows only some codes, and leaves the others in the text
        first = words.partition(" ")[0]
        code = first if first.isupper() and first.isalpha() else ""
    return code


def words_of(error: BaseException) -> str:
    """The server's error text with its code, which redis-py removes from some texts.

    For other exceptions, their type and text.
    """
    words = str(error)
    if not isinstance(error, ANSWERED):
        return f"{type(error).__name__}: {words}" if words else type(error).__name__
    code = error.status_code
    return words if not code or words.startswith(code) else f"{code} {words}"


def classify(error: BaseException) -> Meaning:
    """The meaning of `error`, one of `FAULTS`, for the command that raised it."""
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
    closed = isinstance(error, ConnectionResetError | EOFError) or str(error) == CLOSED
    return _CLOSED if closed else _DISCONNECTED


def lost_among(replies: Sequence[object]) -> Exception | None:
    """The first error among the replies after which the command may have been executed."""
    errors = (ResponseError(str(reply)) for reply in replies if isinstance(reply, Exception))
    return next((error for error in errors if classify(error).verdict is Verdict.LOST), None)


def refused(place: str, error: Exception, *, unknown: bool = False) -> Refused | OutcomeUnknown:
    """The exception for callers whose command the server refused.

    unknown  an earlier attempt got no reply and may have been executed
    """
    meaning = classify(error)
    if isinstance(error, tls.TLSRefused):
        words = f"{place} cannot be reached: {error}"
    elif meaning.remedy == _LOGIN:
        words = f"{place}: authentication failed: {words_of(error)}"
    else:
        words = f"{place} refused: {words_of(error)}"
    if meaning.remedy:
        words += f" ({meaning.remedy})"
    if unknown:
        words += ". An earlier attempt got no reply and may have been executed"
        return OutcomeUnknown(words, code_of(error))
    kind = meaning.kind if issubclass(meaning.kind, Refused) else Refused
    return kind(words, code_of(error))


def gave_up(
    place: str, error: Exception, *, tried_s: float, tries: int, unknown: bool = False
) -> Unavailable | OutcomeUnknown:
    """The exception for callers whose deadline has passed; `error` was the last error."""
    meaning = classify(error)
    attempts = "1 attempt" if tries == 1 else f"{tries} attempts"
    words = (
        f"{place}: gave up after {tried_s:.3g} s ({attempts}); last error: "
        f"{words_of(error)} ({meaning.remedy})"
    )
    if unknown:
        return OutcomeUnknown(f"{words}. The command may have been executed", code_of(error))
    kind = meaning.kind if issubclass(meaning.kind, Unavailable) else Unavailable
    return kind(words, code_of(error))


def overtaken(place: str, error: Exception | None, *, waited_s: float) -> Unavailable:
    """The exception for a caller whose deadline passed while it was queued behind another call.

    error     the last error of that call; `None`: it has had no reply yet
    waited_s  how long that call has been retried
    """
    fault = TimeoutError() if error is None else error
    meaning = classify(fault)
    words = f"{place}: the deadline passed behind a call that "
    if error is None:
        words += f"has had no reply for {waited_s:.3g} s"
    else:
        words += f"has failed for {waited_s:.3g} s; last error: {words_of(error)}"
    kind = meaning.kind if issubclass(meaning.kind, Unavailable) else Unavailable
    return kind(f"{words} ({meaning.remedy}); this call was not sent", code_of(fault))
