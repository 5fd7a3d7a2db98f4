"""What a store can raise.

KVSError
├── InvalidKey            the key can be no key in any store (also a ValueError)
├── NotJSON               the value is no JSON; refused before any I/O (also a ValueError)
├── CorruptValue          what is stored is no JSON; it is left as it is
├── WrongType             the key holds something that is no string: another program's
├── NotStarted            `KVS` was called before startup configured it
├── StoreClosed           the store was closed
├── ClearRefused          clear() would remove keys that may belong to other programs
├── Refused               the server said no, and why; nothing was written
├── Unavailable           the store cannot be reached; nothing was written
└── OutcomeUnknown        the store was lost after sending: written once, or not at all

MissingKVSParameters      a StartupCheck that lists every fault of the configuration
"""

from __future__ import annotations

from collections.abc import Sequence

from learning_observer.prestartup import StartupCheck


class KVSError(Exception):
    """The base of all that a store raises."""


class InvalidKey(KVSError, ValueError):
    """The key is no `str`, has no UTF-8 form, or lies under the reserved prefix."""

    def __init__(self, key: object, reason: str) -> None:
        super().__init__(f"{shorten(key)} can be no key: {reason}")
        self.key = key
        self.reason = reason


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

    Nothing was written. The text ends with the server's own words (`OOM …`, `NOPERM …`).
    """


class Unavailable(KVSError, ConnectionError):
    """The store could not be reached until the deadline. Nothing was written."""


class OutcomeUnknown(KVSError, ConnectionError):
    """The store was lost after sending, until the deadline.

    What was sent is in the store once, or not at all, and nobody can say which.
    """


class MissingKVSParameters(KVSError, StartupCheck):
    """The configuration has faults; `faults` lists them all, each naming its entry."""

    def __init__(self, faults: Sequence[str]) -> None:
        lines = "".join(f"\n  - {fault}" for fault in faults)
        super().__init__(f"the `kvs` configuration cannot be used:{lines}")
        self.faults = tuple(faults)


def shorten(what: object, most: int = 120) -> str:
    """`repr(what)`, cut in the middle where it is longer than `most` characters."""
    text = repr(what)
    if len(text) <= most:
        return text
    half = (most - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
