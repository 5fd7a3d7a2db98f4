"""Open only regular files and real folders; refuse links, FIFOs, sockets and devices.

Other programs can put anything into a store's folder. A link points elsewhere, opening a FIFO
blocks the thread, and a device has no end. So links are not followed, opening never waits, and
sizes are limited. Hard links are harmless: a file is never changed in place.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import IO, Final

from lo_kvs.kvs.errors import shorten

#: The largest file that a store writes or reads, as large as the largest string in Redis.
FILE_BYTES_MAX: Final = 512 * 1024 * 1024

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISREG, "a regular file"),
)


class OddFile(OSError):
    """A path of the store is of the wrong type, such as a link where a file should be."""


def open_regular(path: str, flags: int, mode: int = 0o600) -> tuple[int, os.stat_result]:
    """Open a regular file; return its descriptor and `fstat`. Never follows a link or waits.

    Raises `OddFile` for anything else.
    """
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        file = os.open(path, flags, mode)
    except OSError as error:
        # A link, a socket, a FIFO without a reader, or a folder opened for writing.
        if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR}:
            check_regular(path)
        raise
    found = os.fstat(file)
    if stat.S_ISREG(found.st_mode):
        return file, found
    os.close(file)
    raise odd_file(path, found, "a regular file")


def as_file(file: int, mode: str) -> IO[bytes]:
    """Wrap an open file descriptor in a file object, which then owns it."""
    try:
        return os.fdopen(file, mode)
    except BaseException:
        os.close(file)
        raise


def read_regular(path: str, most: int) -> tuple[bytes, os.stat_result]:
    """The content of a regular file of at most `most` bytes, and its `fstat`."""
    number, found = open_regular(path, os.O_RDONLY)
    with as_file(number, "rb") as file:
        if found.st_size > most:
            raise OSError(
                errno.EFBIG,
                f"{shorten(path, 300)} has {found.st_size:,} bytes, over the limit of {most:,}",
            )
        return file.read(), found


def check_regular(path: str) -> os.stat_result | None:
    """The `lstat` of a regular file; `None` if nothing is there. Otherwise raises `OddFile`."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise odd_file(path, found, "a regular file")
    return found


def check_folder(path: str) -> bool:
    """Whether `path` is a folder; `False` if nothing is there. Otherwise raises `OddFile`."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        raise odd_file(path, found, "a folder")
    return True


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder. Raises `OddFile` if it is a link to one."""
    if entry.is_symlink() and entry.is_dir():
        raise odd_file(entry.path, entry.stat(follow_symlinks=False), "a folder")
    return entry.is_dir(follow_symlinks=False)


def odd_file(path: str, found: os.stat_result, wanted: str) -> OddFile:
    """The error for a path that is not of the `wanted` type."""
    kind = next((name for test, name in _KINDS if test(found.st_mode)), "a device")
    return OddFile(
        errno.EINVAL, f"{shorten(path, 300)} is {kind}, not {wanted}; move it out of the store"
    )
