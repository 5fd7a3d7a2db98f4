"""What a store can raise.

KVSError
├── InvalidKey            the key can be no key in any store (also a ValueError)
├── InvalidArgument       another argument has the wrong type (also a TypeError)
├── NotJSON               the value is no JSON; refused before any I/O (also a ValueError)
├── CorruptValue          what is stored is no JSON; it is left as it is
├── WrongType             the key holds something that is no string: another program's
├── NotStarted            `KVS` was called before startup configured it
├── StoreClosed           the store was closed
├── ClearRefused          clear() would remove keys that may belong to other programs
├── Refused               the server said no, and why; nothing was written
│   ├── OutOfMemory       OOM: maxmemory is reached
│   ├── NotPermitted      NOPERM, NOAUTH, WRONGPASS: rights or password
│   └── TLSFailed         the certificate, or TLS on one side only (also an Unavailable)
├── Unavailable           the store cannot be reached; nothing was written
│   ├── ConnectionLost    no connection could be made, or it broke
│   ├── TimedOut          no answer within the time (also a TimeoutError)
│   ├── ServerLoading     LOADING: the server reads its data
│   ├── ServerBusy        BUSY: a script of somebody else blocks the server
│   ├── ReadOnlyServer    READONLY: the server is a replica
│   ├── NoPrimary         MASTERDOWN, or Sentinel knows of no primary
│   ├── TooFewReplicas    NOREPLICAS: fewer than min-replicas-to-write
│   └── ClusterDown       CLUSTERDOWN, TRYAGAIN: a slot is not served
├── OutcomeUnknown        the store was lost after sending: written once, or not at all
└── NotReplicated         written, but not yet where `wait_replicas` and `wait_aof` ask for

MissingKVSParameters      a StartupCheck that lists every fault of the configuration
"""

from __future__ import annotations

from collections.abc import Sequence

from lo_kvs.prestartup import StartupCheck


class KVSError(Exception):
    """The base of all that a store raises. All of it can be pickled.

    code  what the server's answer began with (`OOM`), or "" where it was not the server's
    """

    code: str = ""

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are made again from their text alone, which ours are not made from.
        return _made_again, (type(self), self.args), self.__dict__ or None


def _made_again(kind: type[KVSError], args: tuple[object, ...]) -> KVSError:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


class InvalidKey(KVSError, ValueError):
    """The key is not a `str`, has no UTF-8 form, is too long, or has the reserved prefix."""

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(f"{shorten(key)} can be no key: {reason}")
        self.key = key
        self.reason = reason


class InvalidArgument(KVSError, TypeError):
    """An argument of a store's method has the wrong type. Nothing was written."""


class NotJSON(KVSError, ValueError):
    """A value that JSON cannot carry unchanged. Nothing was written.

    `path` names the place (`$.students[3].score`), `reason` what is wrong there, and
    `key` the key that the value was meant for, where one is known.
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
    """The bytes stored under `key` are no JSON. They are left as they are."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(
            f"the value of {shorten(key)} is no JSON: {reason}. "
            "It was not changed; set() or remove() the key to replace it"
        )
        self.key = key
        self.reason = reason


class WrongType(KVSError):
    """The key holds something other than a string: it belongs to another program."""

    def __init__(self, key: str, found: str = "no Redis string") -> None:
        super().__init__(
            f"{shorten(key)} holds {found}, so it belongs to another program; "
            "give this store a `prefix` of its own"
        )
        self.key = key


class NotStarted(KVSError, RuntimeError):
    """`KVS` was called before `startup_checks_and_init()` configured it."""


class StoreClosed(KVSError, RuntimeError):
    """The store was closed with `aclose()`."""


class ClearRefused(KVSError):
    """`clear()` on a Redis store without a prefix: its keys cannot be told from others'."""


class Refused(KVSError):
    """The server refused the command, for a reason that waiting does not mend.

    Nothing was written. The text has the server's own words (`OOM …`, `NOPERM …`).
    """

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code


class OutOfMemory(Refused):
    """OOM: `maxmemory` is reached, and nothing may be evicted. Reads and removals go on."""


class NotPermitted(Refused):
    """NOPERM, NOAUTH, WRONGPASS: the server's ACL or password does not allow it."""


class Unavailable(KVSError, ConnectionError):
    """The store could not be reached until the deadline. Nothing was written."""

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code


class TLSFailed(Refused, Unavailable):
    """No secure connection could be made, and trying again does not help.

    The server's certificate is not trusted, has expired or names another host; or one side
    expects TLS and the other does not.
    """


class ConnectionLost(Unavailable):
    """No connection could be made, or it broke each time, until the deadline."""


class TimedOut(Unavailable, TimeoutError):
    """The server, or the way to it, gave no answer in time, until the deadline."""


class ServerLoading(Unavailable):
    """LOADING: the server has started and still reads its data."""


class ServerBusy(Unavailable):
    """BUSY: a script or function of somebody else blocks the server."""


class ReadOnlyServer(Unavailable):
    """READONLY: the server is a replica, perhaps since a failover, and takes no writes."""


class NoPrimary(Unavailable):
    """MASTERDOWN, or the Sentinels know of no primary: nobody takes writes just now."""


class TooFewReplicas(Unavailable):
    """NOREPLICAS: the server has fewer replicas than `min-replicas-to-write`."""


class ClusterDown(Unavailable):
    """CLUSTERDOWN, TRYAGAIN: the cluster does not serve the slot just now."""


class OutcomeUnknown(KVSError, ConnectionError):
    """The store was lost after sending, until the deadline.

    What was sent is in the store once, or not at all, and nobody can say which. The last
    fault is its `__cause__`, and its `code` where a server told one.
    """

    def __init__(self, message: str = "", code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NotReplicated(KVSError):
    """The change was made, but is not yet everywhere that the store's options ask for.

    It will be in the store once, so it must not be sent again. Only a failover or a crash
    before it has been copied can still lose it.

    wanted, got  how many replicas were to have it, and how many are known to
    aof          whether the server has it in its append-only file on disk; `None`: not asked
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
            f"written, not yet replicated: {' and '.join(missing)} within {self.waited_s:g} s; "
            "it is in the store and may still be copied: do not send the event again"
        )


class MissingKVSParameters(KVSError, StartupCheck):
    """The configuration has faults; `faults` lists them all, each naming its entry."""

    def __init__(self, faults: Sequence[str]) -> None:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        super().__init__(f"the `kvs` configuration cannot be used:{lines}")
        self.faults = tuple(faults)


def shorten(what: object, most: int = 120) -> str:
    """`repr(what)`, cut in the middle where it is longer than `most` characters."""
    try:
        text = repr(what)
    except Exception:  # noqa: BLE001 - a caller's object: its text must not hide the error
        text = f"<{type(what).__name__}>"  # also an integer of over 4,300 digits
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
