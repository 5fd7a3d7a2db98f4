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
import logging
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from lo_kvs.kvs.filesystem.journals import (
    Journal,
    JournalRefused,
    Renames,
    journal_text,
    of_another_user,
    read_journal,
)
from lo_kvs.kvs.filesystem.locks import LOCKS, Locks, lock_number
from lo_kvs.kvs.filesystem.regular_files import (
    FILE_BYTES_MAX,
    as_file,
    check_regular,
    open_regular,
    read_regular,
)
from lo_kvs.kvs.filesystem.rights import give, mode_at
from lo_kvs.kvs.filesystem.store_folder import OWN_FOLDER, StoreFolder

__all__ = ["LOCKS", "OWN_FOLDER", "AtomicFiles", "Interrupted"]

logger = logging.getLogger(__name__)

TMP_AGE_MAX_S: Final = 3600.0  # a temporary file this old, in no journal, was left by a crash


class Interrupted(OSError):
    """A change failed after it was begun: it is made, or its journal stands and makes it."""


class AtomicFiles:
    """The files below one folder, named by relative paths.

    subdirs  whether the store's names have folders: a journal may name no others
    group    whether users of one group share the folder, and complete each other's changes
    """

    def __init__(
        self, root: Path, *, subdirs: bool = False, fsync: bool = True, group: bool = False
    ) -> None:
        self.folder = StoreFolder(root, fsync=fsync, group=group)
        self._root = str(root)
        self._subdirs = subdirs
        self._fsync = fsync
        self._group = group
        self._locks = Locks(self.folder)
        self._journals()  # one that is refused stops the start, not only the first call
        if self.folder.writable:
            self._remove_stale()

    def read(self, path: PurePosixPath) -> bytes | None:
        """The bytes of a file, old or new and never a mixture, or `None` without one."""
        name = str(path)
        self.folder.check_above(name)
        try:
            return read_regular(f"{self._root}/{name}", FILE_BYTES_MAX)[0]
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def locked(self, paths: Iterable[PurePosixPath]) -> Iterator[None]:
        """Nobody else changes these files meanwhile, in this process or another."""
        named = set(paths)
        wanted = {lock_number(path) for path in named}
        while True:
            with self._locks.holding(wanted):
                # What a crash left half done is finished before anybody builds on it.
                missing = self._recover(wanted, named)
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
        journal = f"{self.folder.journals}/{uuid.uuid4().hex}" if len(files) > 1 else None
        try:
            for path, data in files.items():
                place = self._place(path)
                mode = mode_at(place, self.folder.rights)
                renames.append((None if data is None else self._write_tmp(data, mode), path))
            if journal is None:
                self._rename(renames)
            else:
                self._write_journal(journal, renames)
        except BaseException as error:
            try:
                # The journal first: without the files that it names it must not be found.
                if journal is not None:
                    _remove(journal)
                for name, _ in renames:
                    if name is not None:
                        _remove(self._tmp(name))
            except OSError:
                raise Interrupted(*error.args) from error
            raise
        try:
            if journal is not None:
                self._rename(renames)
            self._flush_parents(renames)
            if journal is not None:
                _remove(journal)
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
            numbers = {lock_number(path) for _, path in renames}
            if self._is_ours(journal):
                with contextlib.suppress(BlockingIOError), self._locks.holding(numbers, wait=False):
                    self._finish(journal.path)
            elif not self._locks.held(numbers) and check_regular(journal.path) is not None:
                raise of_another_user(journal)

    # -- journals ----------------------------------------------------------------------

    def _recover(self, held: set[int], named: set[PurePosixPath]) -> set[int]:
        """Finish each journal that touches the held locks; returns locks that lack for it.

        The owner of such a journal is gone: alive, it would hold one of these locks. That of
        another user is left, and keeps only those waiting who change the same files.
        """
        missing: set[int] = set()
        for journal, renames in self._journals():
            numbers = {lock_number(path) for _, path in renames}
            if not self._is_ours(journal):
                if not named.isdisjoint(path for _, path in renames):
                    raise of_another_user(journal)
            elif numbers <= held:
                self._finish(journal.path)
            elif numbers & held:
                missing |= numbers - held
        return missing

    def _is_ours(self, journal: Journal) -> bool:
        return self._group or journal.owner == os.geteuid()

    def _journals(self) -> list[tuple[Journal, Renames]]:
        found = []
        try:
            with os.scandir(self.folder.journals) as entries:
                paths = [f"{self.folder.journals}/{entry.name}" for entry in entries]
        except FileNotFoundError:  # a backup without empty folders
            return []
        for path in paths:
            journal = self._read_journal(path)
            if journal is not None and journal.renames is not None:
                found.append((journal, journal.renames))
        return found

    def _read_journal(self, path: str) -> Journal | None:
        journal = read_journal(path, subdirs=self._subdirs)
        if journal is None or journal.renames is not None:
            return journal
        if not self._is_ours(journal):
            raise of_another_user(journal)
        # Without `fsync` a power cut may leave an empty one: nobody knows its change.
        logger.warning("%r is damaged and was removed; its change may be half done", path)
        _remove(path)
        return None

    def _write_journal(self, journal: str, renames: Renames) -> None:
        name = self._write_tmp(journal_text(renames), self.folder.rights.file)
        try:
            self.folder.flush(self.folder.tmp)  # what the journal names is there once it is
            os.rename(self._tmp(name), journal)
        except OSError:
            _remove(self._tmp(name))
            raise
        self.folder.flush(self.folder.journals)

    def _finish(self, path: str) -> None:
        """Carry a journal out, once more where somebody had begun to."""
        journal = self._read_journal(path)
        renames = (journal and journal.renames) or []
        for name, file in renames:
            # The folder was made before the journal; others may have removed it since.
            place = self._place(file)
            if name is None or check_regular(self._tmp(name)) is not None:
                self._rename([(name, file)])
            elif check_regular(place) is None:  # else it was renamed before the crash
                # Without `fsync` a power cut may take it; nobody must wait for it for ever.
                logger.warning("%s is lost: what %r names is not there", file, path)
        self._flush_parents(renames)
        _remove(path)

    # -- files -------------------------------------------------------------------------

    def _tmp(self, name: str) -> str:
        return f"{self.folder.tmp}/{name}"

    def _place(self, path: PurePosixPath) -> str:
        """Where a file is, in a folder that is made if need be."""
        place = f"{self._root}/{path}"
        if len(path.parts) > 1:
            self.folder.check_above(str(path))
            self.folder.make(os.path.dirname(place))
        return place

    def _rename(self, renames: Renames) -> None:
        for name, path in renames:
            place = f"{self._root}/{path}"
            if name is None:
                _remove(place)
            else:
                os.rename(self._tmp(name), place)

    def _flush_parents(self, renames: Renames) -> None:
        for folder in {os.path.dirname(f"{self._root}/{path}") for _, path in renames}:
            self.folder.flush(folder)

    def _write_tmp(self, data: bytes, mode: int) -> str:
        name = uuid.uuid4().hex
        number, _ = open_regular(self._tmp(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with as_file(number, "wb") as file:
                give(number, self.folder.rights, mode)
                file.write(data)
                if self._fsync:
                    file.flush()
                    os.fsync(number)
        except BaseException:
            _remove(self._tmp(name))
            raise
        return name

    def _remove_stale(self) -> None:
        """Remove what crashed writers left. The clock alone does not tell: it may be wrong.

        Whoever writes temporary files holds a lock until they are renamed or in a journal. So
        they are looked through with all locks held, or not at all this time.
        """
        old = self._old_files()
        if not old:
            return
        try:
            with self._locks.holding(range(LOCKS), wait=False):
                kept = {name for _, renames in self._journals() for name, _ in renames}
                for name in old - kept:
                    _remove(self._tmp(name))
        except BlockingIOError:
            return
        except JournalRefused:
            raise
        except OSError as error:
            logger.warning("%r: leftovers of crashes were not removed: %s", self._root, error)

    def _old_files(self) -> set[str]:
        old = set()
        with os.scandir(self.folder.tmp) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if time.time() - found.st_mtime > TMP_AGE_MAX_S and not stat.S_ISDIR(
                        found.st_mode
                    ):
                        old.add(entry.name)
        return old


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
