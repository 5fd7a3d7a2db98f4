"""Writes files for a user safely, also in directories where other users may write.

A new file is written under a random name and renamed when it is complete. A link or a pipe that
somebody placed under the final name is replaced or rejected, never written to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

#: For files with student data; other users cannot read them.
PRIVATE: Final = 0o600
#: For other files, less the user's umask.
PLAIN: Final = 0o666

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD: Final = {"/dev/stdout": 1, "/dev/stderr": 2}


class OutputRefused(OSError):
    """A file was not written; the message says why."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(errno.EPERM, reason, os.fspath(path))


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str], mode: int = PLAIN) -> Iterator[BinaryIO]:
    """A file to write to. It replaces `path` at the end; after an error, `path` is unchanged.

    `path` gets `mode` less the umask, or the permissions of the user's file that it replaces. A
    link is replaced, not followed. A device or a pipe of this user is written to.

    Raises OSError, including `OutputRefused`.
    """
    target = Path(path)
    direct = _direct(target)
    if direct is not None:
        with os.fdopen(direct, "wb") as out:
            yield out
        return
    kept = _kept_mode(target)
    part = target.parent / f".lo-kvs-{secrets.token_hex(12)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        number = os.open(part, flags, mode if kept is None else PRIVATE)
    except OSError as error:  # name the user's file, not the temporary one
        raise type(error)(error.errno, error.strerror, os.fspath(target)) from None
    try:
        with os.fdopen(number, "wb") as out:
            yield out
            out.flush()
            if kept is not None:
                os.fchmod(number, kept)
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def appended(path: str | os.PathLike[str]) -> BinaryIO:
    """The file `path` to append to, unbuffered; a new one is private. Raises OSError.

    It must be a regular file of this user without other hard links. Otherwise another user could
    redirect the output.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        number = os.open(path, flags, PRIVATE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OutputRefused(path, "is a symbolic link; name the file itself") from None
        if error.errno == errno.ENXIO:
            raise OutputRefused(path, "is not a regular file") from None
        raise
    reason = _reason_against(os.fstat(number))
    if reason is not None:
        os.close(number)
        raise OutputRefused(path, reason)
    return os.fdopen(number, "ab", buffering=0)


def _reason_against(found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if found.st_nlink > 1:
        return "has other hard links; name a new file"
    if os.geteuid() not in {found.st_uid, 0}:
        return "belongs to another user; name a new file"
    return None


def check_place(path: Path) -> None:
    """Raise OSError if `replaced` could not create this file, before a long run starts."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(folder))
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))


def _direct(path: Path) -> int | None:
    """A descriptor for a path that cannot be replaced: own descriptors, devices, pipes."""
    text = os.fspath(path)
    named = _DESCRIPTOR.fullmatch(text)
    if named is not None or text in _STANDARD:
        return os.dup(int(named[1]) if named is not None else _STANDARD[text])
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode):
        return None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text)
    if found.st_uid not in {os.geteuid(), 0}:
        raise OutputRefused(path, "is not a regular file and belongs to another user")
    return os.open(path, os.O_WRONLY | os.O_CLOEXEC)


def _kept_mode(path: Path) -> int | None:
    """The permissions of the file to replace, or `None` if it is not this user's."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    return stat.S_IMODE(found.st_mode) & 0o777 if ours else None
