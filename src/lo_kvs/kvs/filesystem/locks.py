"""Locks between processes: `flock` on a fixed set of numbered lock files."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

from lo_kvs.kvs.filesystem.regular_files import open_regular
from lo_kvs.kvs.filesystem.rights import give
from lo_kvs.kvs.filesystem.store_folder import StoreFolder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCKS: Final = 64  # number of lock files; keys share them
#: Whether this system has the file locks that a filesystem store needs.
AVAILABLE: Final = fcntl is not None


def lock_number(path: PurePosixPath) -> int:
    """The number of the lock file for `path`."""
    return zlib.crc32(str(path).encode()) % LOCKS


class Locks:
    """The lock files of one store."""

    def __init__(self, folder: StoreFolder) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def holding(self, numbers: Iterable[int], *, wait: bool = True) -> Iterator[None]:
        """Hold these locks. Without `wait`, raises `BlockingIOError` if one is taken."""
        operation = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
        with contextlib.ExitStack() as held:
            for number in sorted(numbers):  # always in the same order, to avoid deadlocks
                held.callback(_unlock, self._take(self._path(number), operation))
            yield

    def held(self, numbers: Iterable[int]) -> bool:
        """Whether one of these locks is taken. Creates no file and does not wait."""
        for number in numbers:
            try:
                lock, _ = open_regular(self._path(number), os.O_RDONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            finally:
                _unlock(lock)
        return False

    def _path(self, number: int) -> str:
        return f"{self._folder.locks}/{number:02x}"

    def _take(self, path: str, operation: int) -> int:
        while True:
            lock, found = self._open(path)
            try:
                fcntl.flock(lock, operation)
                # A lock on a file that was removed or replaced meanwhile has no effect.
                now = os.stat(path, follow_symlinks=False)
                if (now.st_dev, now.st_ino) == (found.st_dev, found.st_ino):
                    if now.st_nlink == 1:
                        return lock
                    # A hard link could be another lock file as well, and block its own holder.
                    # Other processes that wait for it notice that it was replaced.
                    os.unlink(path)
            except FileNotFoundError:
                pass
            except BaseException:
                _unlock(lock)
                raise
            _unlock(lock)

    def _open(self, path: str) -> tuple[int, os.stat_result]:
        try:
            return open_regular(path, os.O_RDWR)
        except FileNotFoundError:
            return self._make(path)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EROFS}:
                raise
            # flock needs no write permission (except on NFS): read another user's file.
            return open_regular(path, os.O_RDONLY)

    def _make(self, path: str) -> tuple[int, os.stat_result]:
        rights = self._folder.rights
        try:
            lock, found = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, rights.file)
        except FileExistsError:  # another process created it first
            return self._open(path)
        try:
            give(lock, rights, rights.file)
        except BaseException:
            os.close(lock)
            raise
        return lock, found


def _unlock(lock: int) -> None:
    """Close a lock file. This releases the lock even if `close` fails (Linux, BSD), and nothing
    was written to it. So an error here must not be reported as a failed change.
    """
    try:
        os.close(lock)
    except OSError as error:
        logger.warning("error while closing a lock file (the lock is released): %s", error)
