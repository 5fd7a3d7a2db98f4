"""FilesystemKVS: a JSON file for each key."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from learning_observer.kvs.changes import Change, Conflict, Guard, Outcome, check_changes, check_key
from learning_observer.kvs.errors import KVSError, OutcomeUnknown, Unavailable
from learning_observer.kvs.file_names import KEY_SUFFIX, is_digest, key_of, path_of
from learning_observer.kvs.files import OWN_FOLDER, Files, Interrupted
from learning_observer.kvs.patience import RetryBudget
from learning_observer.kvs.store import Store
from learning_observer.paths import expand_path

FORMAT_VERSION: Final = 1


class FilesystemKVS(Store):
    """Keeps each value as a JSON file below `path`; it survives restarts.

    path     the folder; it is made where there is none
    subdirs  whether `a/b` lies in a folder `_a`; a folder keeps to what it was made with
    fsync    whether a change is on the disk when it is acknowledged (default), or only
             safe from a crash of the process

    Several processes on one machine may share the folder: changes take a lock for each key
    (flock, so not on every network file system). The work is done in threads; the event
    loop is never blocked. Raises `KVSError` where the folder cannot be used.
    """

    def __init__(self, path: str | Path, subdirs: bool = False, *, fsync: bool = True) -> None:
        super().__init__()
        self._subdirs = subdirs
        try:
            self._root = expand_path(path).absolute()  # the working folder may change
        except ValueError as error:
            raise KVSError(f"{os.fspath(path)} cannot hold a store: {error}") from None
        try:
            self._files = Files(self._root, fsync=fsync)
            self._check_format()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise KVSError(
                f"{self._root} cannot hold a store: {getattr(error, 'strerror', None) or error}; "
                "`path` must name a folder that this process may write to"
            ) from error

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        self._check_open()
        paths = [self._path(key) for key in keys]
        return await asyncio.to_thread(self._read, paths)

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self._check_open()
        check_changes(changes)
        return await asyncio.to_thread(lambda: [self._commit_one(change) for change in changes])

    async def scan(
        self, prefix: str = "", *, budget: RetryBudget | None = None
    ) -> AsyncIterator[str]:
        self._check_open()
        check_key(prefix)
        try:
            keys = await asyncio.to_thread(lambda: list(self._keys()))
        except OSError as error:
            raise Unavailable(f"cannot list {self._root}: {error}") from error
        for key in keys:
            if key.startswith(prefix):
                yield key

    def _path(self, key: str) -> PurePosixPath:
        return path_of(check_key(key), subdirs=self._subdirs)

    def _read(self, paths: list[PurePosixPath]) -> list[bytes | None]:
        try:
            self._files.recover(paths)
            return [self._files.read(path) for path in paths]
        except OSError as error:
            raise Unavailable(f"cannot read from {self._root}: {error}") from error

    def _commit_one(self, change: Change) -> Outcome:
        guard = self._path(change.guard)
        files: dict[PurePosixPath, bytes | None] = {}
        for key, data in change.puts.items():
            path = self._path(key)
            if is_digest(path):
                files[path.with_suffix(KEY_SUFFIX)] = None if data is None else key.encode()
            files[path] = data
        try:
            with self._files.locked({guard, *files}):
                if change.expected is not Guard.ANY:
                    current = self._files.read(guard)
                    if current != change.expected:
                        return Conflict(current)
                self._files.replace(files)
                return None
        except Interrupted as error:
            return OutcomeUnknown(f"writing to {self._root} was interrupted: {error}")
        except OSError as error:
            return Unavailable(f"cannot write to {self._root}: {error}; nothing was changed")

    def _keys(self) -> Iterator[str]:
        self._files.recover()
        folders = [""]  # relative, still to be looked at
        while folders:
            folder = folders.pop()
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    path = folder + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if self._subdirs and entry.name.startswith("_"):
                            folders.append(path + "/")
                        continue
                    key = key_of(PurePosixPath(path), self._root, subdirs=self._subdirs)
                    if key is not None:
                        yield key

    def _check_format(self) -> None:
        marker = self._root / OWN_FOLDER / "format.json"
        made = {"version": FORMAT_VERSION, "subdirs": self._subdirs}
        if not marker.exists():
            name = PurePosixPath(OWN_FOLDER) / marker.name
            with self._files.locked([name]):
                if not marker.exists():
                    self._files.replace({name: json.dumps(made).encode()})
        try:
            found = json.loads(marker.read_bytes())
        except ValueError:
            raise KVSError(
                f"{marker} is damaged: it should say {json.dumps(made)}, or `subdirs` the other "
                "way round where the store was made so"
            ) from None
        if found != made:
            raise KVSError(
                f"{self._root} was made with {found}, not with {made}: other names for the "
                "same keys. Use the same `subdirs`, or dump the store and load it elsewhere"
            )
