"""FilesystemKVS: a store that keeps one JSON file per key."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from lo_kvs.kvs.batching.deadlines import RetryBudget
from lo_kvs.kvs.changes import (
    Change,
    Conflict,
    Guard,
    Outcome,
    check_changes,
    check_deadline,
    check_key,
    check_keys,
    is_key,
)
from lo_kvs.kvs.errors import KVSError, OutcomeUnknown, Refused, Unavailable, shorten
from lo_kvs.kvs.filesystem import locks
from lo_kvs.kvs.filesystem.atomic_files import AtomicFiles, Interrupted
from lo_kvs.kvs.filesystem.file_names import (
    KEY_SUFFIX,
    PATH_LENGTH_MAX,
    is_digest,
    key_of,
    path_of,
)
from lo_kvs.kvs.filesystem.journals import JournalRefused
from lo_kvs.kvs.filesystem.regular_files import FILE_BYTES_MAX, OddFile, is_folder, read_regular
from lo_kvs.kvs.filesystem.store_folder import MARKER, OWN_FOLDER, ForeignFolder
from lo_kvs.kvs.store import Store
from lo_kvs.settings.paths import expand_path

FORMAT_VERSION: Final = 1
MARKER_BYTES_MAX: Final = 4096


class FilesystemKVS(Store):
    """Keeps each value as a JSON file below `path`; values survive restarts.

    path     the folder; it is created if it does not exist
    subdirs  whether the key `a/b` is in a folder `_a`; fixed when the store is created
    fsync    `True` (default): an acknowledged change is on the disk and survives a power failure.
             `False`: it survives only a crash of the process
    group    whether the users of one group share the folder: it is created with mode 2770
             (otherwise 0700), and they complete each other's changes after a crash

    An existing folder keeps its permissions, and new files follow them. A folder with other
    content is refused. A user with read permission only can open the store and read.

    Several processes on one machine may share the folder: a change locks its keys with flock,
    which not every network file system supports. All work is done in threads, so the event
    loop is never blocked. Raises `KVSError` if the folder cannot be used.
    """

    def __init__(
        self, path: str | Path, subdirs: bool = False, *, fsync: bool = True, group: bool = False
    ) -> None:
        super().__init__()
        if not locks.AVAILABLE:
            raise KVSError(
                "a filesystem store needs file locks (Python's module fcntl), which this system "
                "does not have; use a store of type redis"
            )
        self._subdirs = subdirs
        try:
            self._root = expand_path(path).absolute()  # the working directory may change
        except ValueError as error:
            raise KVSError(f"{os.fspath(path)} cannot hold a store: {error}") from None
        try:
            self._files = AtomicFiles(self._root, subdirs=subdirs, fsync=fsync, group=group)
            self._check_format()
            self._files.folder.accept()
        except (ForeignFolder, JournalRefused, OddFile) as error:
            raise KVSError(f"{self._root} cannot hold a store: {error.strerror}") from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise KVSError(
                f"{self._root} cannot hold a store: {getattr(error, 'strerror', None) or error}; "
                "`path` must name a folder that this process may write to"
            ) from error

    def _place(self) -> str:
        return f"in {os.fspath(self._root)!r}"

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        self._check_open()
        check_deadline(deadline)
        paths = [self._path(key) for key in check_keys(keys)]
        return await asyncio.to_thread(self._read, paths)

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self._check_open()
        check_deadline(deadline)
        checked = check_changes(changes)
        return await asyncio.to_thread(lambda: [self._commit_one(change) for change in checked])

    async def scan(
        self, prefix: str = "", *, budget: RetryBudget | None = None
    ) -> AsyncIterator[str]:
        self._check_open()
        prefix = check_key(prefix)
        try:
            keys = await asyncio.to_thread(lambda: list(self._keys()))
        except OSError as error:
            raise Unavailable(f"cannot list {self._root}: {_reason(error)}") from error
        for key in keys:
            if key.startswith(prefix) and is_key(key):
                yield key

    def _path(self, key: str) -> PurePosixPath:
        return path_of(key, subdirs=self._subdirs)

    def _read(self, paths: list[PurePosixPath]) -> list[bytes | None]:
        try:
            self._look()
            self._files.recover(paths)
            return [self._files.read(path) for path in paths]
        except OSError as error:
            raise Unavailable(f"cannot read from {self._root}: {_reason(error)}") from error

    def _look(self) -> None:
        """Check the format again if the folder was replaced since the store was opened."""
        if not self._files.folder.look():
            try:
                self._check_format()
            except KVSError as error:
                raise OSError(errno.EINVAL, str(error)) from error
            self._files.folder.accept()

    def _commit_one(self, change: Change) -> Outcome:
        guard = self._path(change.guard)
        files: dict[PurePosixPath, bytes | None] = {}
        for key, data in change.puts.items():
            path = self._path(key)
            if data is not None and len(data) > FILE_BYTES_MAX:
                return Refused(f"the value of {shorten(key)} has over {FILE_BYTES_MAX:,} bytes")
            if is_digest(path):
                files[path.with_suffix(KEY_SUFFIX)] = None if data is None else key.encode()
            files[path] = data
        try:
            self._look()
            with self._files.locked({guard, *files}):
                if change.expected is not Guard.ANY:
                    current = self._files.read(guard)
                    if current != change.expected:
                        return Conflict(current)
                self._files.replace(files)
                return None
        except Interrupted as error:
            return OutcomeUnknown(f"writing to {self._root} was interrupted: {_reason(error)}")
        except OSError as error:
            reason = _reason(error)
            return Unavailable(f"cannot write to {self._root}: {reason}. Nothing was changed")

    def _keys(self) -> Iterator[str]:
        self._look()
        self._files.recover()
        folders = [""]  # relative paths that are still to be listed
        while folders:
            folder = folders.pop()
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    path = folder + entry.name
                    if self._subdirs and entry.name.startswith("_") and is_folder(entry):
                        if len(path) <= 2 * PATH_LENGTH_MAX:  # no key has a longer path
                            folders.append(path + "/")
                    elif not entry.is_dir(follow_symlinks=False):
                        key = key_of(PurePosixPath(path), self._root, subdirs=self._subdirs)
                        if key is not None:
                            yield key

    def _check_format(self) -> None:
        made = {"version": FORMAT_VERSION, "subdirs": self._subdirs}
        marker = self._files.folder.marker
        name = PurePosixPath(OWN_FOLDER, MARKER)
        if self._files.read(name) is None:
            with self._files.locked([name]):
                if self._files.read(name) is None:
                    self._files.replace({name: json.dumps(made).encode()})
        text, _ = read_regular(marker, MARKER_BYTES_MAX)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise KVSError(
                f"{marker} is damaged. Expected: {json.dumps(made)} (with the `subdirs` that the "
                "store was created with)"
            )
        if found != made:
            raise KVSError(
                f"{self._root} was created with {shorten(found)}, not with {made}, so its files "
                "have other names. Use the same `subdirs`, or dump the store and load it elsewhere"
            )


def _reason(error: OSError) -> object:
    """The text of an error: with the file name for system errors; ours already contain it."""
    return error if error.filename else error.strerror or error
