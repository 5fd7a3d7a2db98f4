"""Files that change whole or not at all, between processes and through crashes.

A change of one file is a temporary file, flushed, and renamed over the old one. A change of
several files first writes them all as temporary files, then a journal that lists the
renames; once the journal stands, the change is made, and whoever finds a journal whose
owner is gone carries its renames out. Layout of the store's own folder:

    .lo_kvs/format.json    the layout's version and options
    .lo_kvs/locks/3f       locked with flock while a key of that number is changed
    .lo_kvs/tmp/           files that are not renamed yet
    .lo_kvs/journal/       {"renames": [[temporary name or null, path], …]}

Everything here blocks; `FilesystemKVS` calls it in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final, TypeAlias

logger = logging.getLogger(__name__)

OWN_FOLDER: Final = ".lo_kvs"
LOCKS: Final = 64  # lock files; keys share them, so their number stays bounded
TMP_AGE_MAX_S: Final = 3600.0  # a temporary file this old, in no journal, was left by a crash

#: What a change comes to: temporary names, `None` for a removal, and the files' paths.
Renames: TypeAlias = list[tuple[str | None, PurePosixPath]]


class Interrupted(OSError):
    """A change failed after it was begun: it is made, or its journal stands and makes it."""


class Files:
    """The files below one folder, named by relative paths."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self._root = root
        self._fsync = fsync
        self._locks, self._tmp, self._journal = (
            root / OWN_FOLDER / name for name in ("locks", "tmp", "journal")
        )
        for folder in (self._locks, self._tmp, self._journal):
            folder.mkdir(parents=True, exist_ok=True)
        # Whether files can be made here shows only when one is: these two have no names.
        for folder in (root, self._tmp):
            tempfile.TemporaryFile(dir=folder).close()
        self._remove_stale()

    def read(self, path: PurePosixPath) -> bytes | None:
        """The bytes of a file, old or new and never a mixture, or `None` without one."""
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def locked(self, paths: Iterable[PurePosixPath]) -> Iterator[None]:
        """Nobody else changes these files meanwhile, in this process or another."""
        wanted = {_lock_number(path) for path in paths}
        while True:
            with self._holding(wanted):
                # What a crash left half done is finished before anybody builds on it.
                missing = self._recover(wanted)
                if not missing:
                    yield
                    return
            wanted |= missing

    def replace(self, files: Mapping[PurePosixPath, bytes | None]) -> None:
        """Replace (or, with `None`, remove) all of these files or none; hold their locks.

        Raises `OSError` where nothing was changed, `Interrupted` where the change was
        begun; one of several files will be completed by the next one who comes by.
        """
        renames: Renames = []
        journal = self._journal / uuid.uuid4().hex if len(files) > 1 else None
        try:
            for path, data in files.items():
                renames.append((None if data is None else self._write_tmp(data), path))
                self._make_folder((self._root / path).parent)
            if journal is None:
                self._rename(renames)
            else:
                self._write_journal(journal, renames)
        except BaseException as error:
            try:
                # The journal first: without the files that it names it must not be found.
                if journal is not None:
                    journal.unlink(missing_ok=True)
                for name, _ in renames:
                    if name is not None:
                        (self._tmp / name).unlink(missing_ok=True)
            except OSError:
                raise Interrupted(*error.args) from error
            raise
        try:
            if journal is not None:
                self._rename(renames)
            self._flush_parents(renames)
            if journal is not None:
                journal.unlink(missing_ok=True)
        except OSError as error:
            raise Interrupted(*error.args) from error

    def recover(self, paths: Iterable[PurePosixPath] | None = None) -> None:
        """Finish what crashed writers left half done; the changes of live ones are left.

        paths  only changes of one of these files; `None`: all. A change of other files that
               cannot be finished now then keeps nobody from reading.
        """
        wanted = None if paths is None else set(paths)
        for journal, renames in self._journals():
            if wanted is not None and wanted.isdisjoint(path for _, path in renames):
                continue
            numbers = {_lock_number(path) for _, path in renames}
            with contextlib.suppress(BlockingIOError), self._holding(numbers, wait=False):
                self._finish(journal)

    # -- locks -------------------------------------------------------------------------

    @contextlib.contextmanager
    def _holding(self, numbers: Iterable[int], *, wait: bool = True) -> Iterator[None]:
        mode = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
        with contextlib.ExitStack() as held:
            for number in sorted(numbers):  # one order for all: nobody waits in a circle
                lock = os.open(self._locks / f"{number:02x}", os.O_RDWR | os.O_CREAT, 0o666)
                held.callback(_unlock, lock)
                fcntl.flock(lock, mode)
            yield

    def _recover(self, held: set[int]) -> set[int]:
        """Finish each journal that touches the held locks; returns locks that lack for it.

        The owner of such a journal is gone: alive, it would hold one of these locks.
        """
        missing: set[int] = set()
        for journal, renames in self._journals():
            numbers = {_lock_number(path) for _, path in renames}
            if numbers <= held:
                self._finish(journal)
            elif numbers & held:
                missing |= numbers - held
        return missing

    # -- journals ----------------------------------------------------------------------

    def _journals(self) -> list[tuple[Path, Renames]]:
        found = []
        with os.scandir(self._journal) as entries:
            for entry in entries:
                renames = self._read_journal(Path(entry.path))
                if renames:
                    found.append((Path(entry.path), renames))
        return found

    def _read_journal(self, journal: Path) -> Renames:
        try:
            text = journal.read_bytes()
        except FileNotFoundError:  # its owner has just finished
            return []
        try:
            renames = json.loads(text)["renames"]
        except ValueError:
            # Without `fsync` a power cut may leave an empty one: nobody knows its change.
            logger.warning("%s is damaged and was removed; its change may be half done", journal)
            journal.unlink(missing_ok=True)
            return []
        return [(name, PurePosixPath(path)) for name, path in renames]

    def _write_journal(self, journal: Path, renames: Renames) -> None:
        listed = [[name, str(path)] for name, path in renames]
        name = self._write_tmp(json.dumps({"renames": listed}).encode())
        try:
            self._flush_folder(self._tmp)  # what the journal names is there once the journal is
            (self._tmp / name).rename(journal)
        except OSError:
            (self._tmp / name).unlink(missing_ok=True)
            raise
        self._flush_folder(self._journal)

    def _finish(self, journal: Path) -> None:
        """Carry a journal out, once more where somebody had begun to."""
        renames = self._read_journal(journal)
        for name, path in renames:
            # The folder was made before the journal; others may have removed it since.
            self._make_folder((self._root / path).parent)
            if name is None or (self._tmp / name).exists():
                self._rename([(name, path)])
            elif not (self._root / path).exists():  # else it was renamed before the crash
                # Without `fsync` a power cut may take it; nobody must wait for it for ever.
                logger.warning("%s is lost: what %s names is not there", path, journal)
        self._flush_parents(renames)
        journal.unlink(missing_ok=True)

    def _rename(self, renames: Renames) -> None:
        for name, path in renames:
            if name is None:
                (self._root / path).unlink(missing_ok=True)
            else:
                (self._tmp / name).rename(self._root / path)

    def _flush_parents(self, renames: Renames) -> None:
        for folder in {(self._root / path).parent for _, path in renames}:
            self._flush_folder(folder)

    # -- files -------------------------------------------------------------------------

    def _write_tmp(self, data: bytes) -> str:
        name = uuid.uuid4().hex
        path = self._tmp / name
        try:
            with path.open("xb") as file:
                file.write(data)
                if self._fsync:
                    file.flush()
                    os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return name

    def _make_folder(self, folder: Path) -> None:
        missing: list[Path] = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            self._flush_folder(each.parent)

    def _flush_folder(self, folder: Path) -> None:
        if not self._fsync:
            return
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(opened)  # the rename itself
        finally:
            os.close(opened)

    def _remove_stale(self) -> None:
        kept = {name for _, renames in self._journals() for name, _ in renames}
        with os.scandir(self._tmp) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if (
                        entry.name not in kept
                        and time.time() - entry.stat().st_mtime > TMP_AGE_MAX_S
                    ):
                        Path(entry.path).unlink()


def _unlock(lock: int) -> None:
    """Close a lock's file. That unlocks it whatever `close` answers (Linux, BSD), and nothing
    was written to it: a failure must not be taken for one of the change that was made.
    """
    try:
        os.close(lock)
    except OSError as error:
        logger.warning("a lock was closed with an error: %s", error)


def _lock_number(path: PurePosixPath) -> int:
    return zlib.crc32(str(path).encode()) % LOCKS
