"""The exceptions that a store can raise.

KVSError
├── InvalidKey            the key is not valid in any store (also a ValueError)
├── InvalidArgument       another argument has the wrong type (also a TypeError)
├── NotJSON               the value is not JSON; raised before any I/O (also a ValueError)
├── CorruptValue          the stored value is not JSON; it is left unchanged
├── WrongType             the key is not a string in Redis: it belongs to another program
├── NotStarted            `KVS` was called before startup configured it
├── StoreClosed           the store was closed
├── ClearRefused          clear() would remove keys that may belong to other programs
├── Refused               the server refused the command; nothing was written
│   ├── OutOfMemory       OOM: maxmemory is reached
│   ├── NotPermitted      NOPERM, NOAUTH, WRONGPASS: permission or password
│   └── TLSFailed         bad certificate, or TLS on one side only (also an Unavailable)
├── Unavailable           the store cannot be reached; nothing was written
│   ├── ConnectionLost    no connection could be made, or it broke
│   ├── TimedOut          no reply in time (also a TimeoutError)
│   ├── ServerLoading     LOADING: the server is loading its data
│   ├── ServerBusy        BUSY: a script of another program blocks the server
│   ├── ReadOnlyServer    READONLY: the server is a replica
│   ├── NoPrimary         MASTERDOWN, or the Sentinels know no primary
│   ├── TooFewReplicas    NOREPLICAS: fewer than min-replicas-to-write
│   └── ClusterDown       CLUSTERDOWN, TRYAGAIN: a slot is not served
├── OutcomeUnknown        the connection was lost after sending: written once, or not at all
└── NotReplicated         written, but not yet confirmed as `wait_replicas` and `wait_aof` require

MissingKVSParameters      a StartupCheck that lists every fault of the configuration
"""

from __future__ import annotations

from collections.abc import Sequence

from lo_kvs.prestartup import StartupCheck


class KVSError(Exception):
    """The base class of a store's exceptions. All of them can be pickled.

    code  the server's error code (`OOM`), or "" if the error is not from a server
    """

    code: str = ""

    def __reduce__(self) -> tuple[object, ...]:
        # By default, unpickling calls the class with its text only; ours take other arguments.
        return _made_again, (type(self), self.args), self.__dict__ or None


def _made_again(kind: type[KVSError], args: tuple[object, ...]) -> KVSError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class InvalidKey(KVSError, ValueError):
    """The key is not a `str`, has no UTF-8 form, is too long, or has the reserved prefix."""

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(f"invalid key {shorten(key)}: {reason}")
        self.key = key
        self.reason = reason


class InvalidArgument(KVSError, TypeError):
    """An argument of a store's method has the wrong type. Nothing was written."""


class NotJSON(KVSError, ValueError):
    """A value that JSON cannot represent. Nothing was written.

    path    the path of the invalid part (`$.students[3].score`)
    reason  what is wrong there
    key     the key of the value, if known
    """

    def __init__(self, path: str, reason: str, key: str | None = None) -> None:
        super().__init__(path, reason, key)
        self.path = path
        self.reason = reason
        self.key = key

    def __str__(self) -> str:
        text = f"{self.path}: {self.reason}"
        return text if self.key is None else f"{text} (value for key {shorten(self.key)})"


class CorruptValue(KVSError):
    """The bytes stored under `key` are not valid JSON. They are left unchanged."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"the value of {shorten(key)} is not valid JSON: {reason}. "
            "It was not changed. To replace it, set() or remove() the key"
        )
        self.key = key
        self.reason = reason


class WrongType(KVSError):
    """The key is not a string in Redis, so it belongs to another program."""

    def __init__(self, key: str, found: str = "not a Redis string") -> None:
        super().__init__(
            f"{shorten(key)} is {found}, so it belongs to another program. "
            "Give this store its own `prefix`"
        )
        self.key = key


class NotStarted(KVSError, RuntimeError):
    """`KVS` was called before `startup_checks_and_init()` configured it."""


class StoreClosed(KVSError, RuntimeError):
    """The store was closed with `aclose()`."""


class ClearRefused(KVSError):
    """`clear()` on a Redis store without a prefix would also remove other programs' keys."""


class Refused(KVSError):
    """The server refused the command, and a retry does not help.

    Nothing was written. The message contains the server's error (`OOM …`, `NOPERM …`).
    """

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code


class OutOfMemory(Refused):
    """OOM: `maxmemory` is reached, and nothing can be evicted. Reads and removals still work."""


class NotPermitted(Refused):
    """NOPERM, NOAUTH, WRONGPASS: the server's ACL or password does not allow it."""


class Unavailable(KVSError, ConnectionError):
    """The store could not be reached until the deadline. Nothing was written."""

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code


class TLSFailed(Refused, Unavailable):
    """No secure connection could be made, and a retry does not help.

    The server's certificate is not trusted, has expired or names another host; or one side
    expects TLS and the other does not.
    """


class ConnectionLost(Unavailable):
    """No connection could be made, or it broke each time, until the deadline."""


class TimedOut(Unavailable, TimeoutError):
    """The server did not reply, or could not be reached in time, until the deadline."""


class ServerLoading(Unavailable):
    """LOADING: the server has started and is still loading its data."""


class ServerBusy(Unavailable):
    """BUSY: a script or function of another program blocks the server."""


class ReadOnlyServer(Unavailable):
    """READONLY: the server is a replica, perhaps after a failover, and accepts no writes."""


class NoPrimary(Unavailable):
    """MASTERDOWN, or the Sentinels know no primary: no server accepts writes at the moment."""


class TooFewReplicas(Unavailable):
    """NOREPLICAS: the server has fewer replicas than `min-replicas-to-write`."""


class ClusterDown(Unavailable):
    """CLUSTERDOWN, TRYAGAIN: the cluster does not serve the slot at the moment."""


class OutcomeUnknown(KVSError, ConnectionError):
    """The connection was lost after sending, and did not come back before the deadline.

    The change was made once or not at all; it is unknown which. `__cause__` is the last error, and
    `code` the server's error code, if there was one.
    """

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NotReplicated(KVSError):
    """The change was made, but not yet confirmed as the store's options require.

    It is in the store once, so do not send it again. Only a failover or a crash before it has
    been copied can still lose it.

    wanted, got  the number of replicas that must have it, and that have confirmed it
    aof          whether it is in the server's append-only file on disk; `None`: not asked
    """

    def __init__(self, wanted: int, got: int, *, aof: bool | None, waited_s: float) -> None:
        super().__init__(wanted, got, aof, waited_s)
        self.wanted = wanted
        self.got = got
        self.aof = aof
        self.waited_s = waited_s

    def __str__(self) -> str:
        missing = []
        if self.got < self.wanted:
            plural = "" if self.wanted == 1 else "s"
            missing.append(f"{self.got} of {self.wanted} replica{plural}")
        if self.aof is False:
            missing.append("not on the server's own disk")
        return (
            f"written, but not yet replicated: {' and '.join(missing)} within {self.waited_s:g} s. "
            "The change is in the store and may still be copied: do not send it again"
        )


class MissingKVSParameters(KVSError, StartupCheck):
    """The configuration is invalid; `faults` lists every fault with the name of its entry."""

    def __init__(self, faults: Sequence[str]) -> None:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        super().__init__(f"the `kvs` configuration cannot be used:{lines}")
        self.faults = tuple(faults)


def shorten(what: object, most: int = 120) -> str:
    """`repr(what)`, shortened in the middle to `most` characters."""
    try:
        text = repr(what)
    except Exception:  # noqa: BLE001 - a caller's object: its text must not hide the error
        text = f"<{type(what).__name__}>"  # also an integer of over 4,300 digits
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
