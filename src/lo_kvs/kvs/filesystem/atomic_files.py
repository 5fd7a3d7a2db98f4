"""AtomicFiles: replaces one or several files atomically, across processes and crashes.

To change one file, write a temporary file, flush it, and rename it over the old one. To change
several files, write all of them as temporary files, then write a journal that lists the
renames. The change is committed when the journal exists. Any process that finds a journal whose
owner is gone executes its renames. Layout of the store's own folder:

    .lo_kvs/format.json    version and options of the layout
    .lo_kvs/locks/3f       locked with flock while a key with that lock number is changed
    .lo_kvs/tmp/           files that are not renamed yet
    .lo_kvs/journal/       {"renames": [[temporary name or null, path], …]}

All functions here block; `FilesystemKVS` calls them in threads.
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

TMP_AGE_MAX_S: Final = 3600.0  # an older temporary file that no journal lists is from a crash


class Interrupted(OSError):
    """A change failed after its commit point: it is made, or its journal will complete it."""


class AtomicFiles:
    """The files below one folder, addressed by relative paths.

    subdirs  whether file names may have folders; journals are checked against this
    group    whether the users of one group share the folder and complete each other's changes
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
        self._journals()  # an invalid journal fails here, at startup, not in the first call
        if self.folder.writable:
            self._remove_stale()

    def read(self, path: PurePosixPath) -> bytes | None:
        """The bytes of a file, either old or new, never a mix. `None` if it does not exist."""
        name = str(path)
        self.folder.check_above(name)
        try:
            return read_regular(f"{self._root}/{name}", FILE_BYTES_MAX)[0]
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def locked(self, paths: Iterable[PurePosixPath]) -> Iterator[None]:
        """Lock these files against changes by other threads and processes."""
        named = set(paths)
        wanted = {lock_number(path) for path in named}
        while True:
            with self._locks.holding(wanted):
                # Complete what a crash left unfinished before anything builds on it.
                missing = self._recover(wanted, named)
                if not missing:
                    yield
                    return
            wanted |= missing

    def replace(self, files: Mapping[PurePosixPath, bytes | None]) -> None:
        """Replace (or remove, for `None`) all of these files or none. The caller holds the locks.

        Raises `OSError` if nothing was changed, and `Interrupted` if the change was already
        committed: the next process that uses one of these files completes it.
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
                # Remove the journal first: it must never exist without the files it lists.
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
        """Complete the changes of crashed writers; leave those of running ones alone.

        paths  only changes that include one of these files (`None`: all). So a broken change
               of other files does not block reading.
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
        """Complete each journal that needs one of the held locks; return the missing locks.

        The owner of such a journal is gone: a running owner would hold one of these locks. The
        journal of another user is not touched; it blocks only changes of the same files.
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
        except FileNotFoundError:  # a backup that dropped empty folders
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
        # Without `fsync`, a power failure can leave an empty journal: its change is unknown.
        logger.warning(
            "Removed the journal %r: it is empty (power failure without fsync?). "
            "Its change may be incomplete",
            path,
        )
        _remove(path)
        return None

    def _write_journal(self, journal: str, renames: Renames) -> None:
        name = self._write_tmp(journal_text(renames), self.folder.rights.file)
        try:
            self.folder.flush(self.folder.tmp)  # the files reach the disk before the journal
            os.rename(self._tmp(name), journal)
        except OSError:
            _remove(self._tmp(name))
            raise
        self.folder.flush(self.folder.journals)

    def _finish(self, path: str) -> None:
        """Execute a journal; another process may have executed part of it."""
        journal = self._read_journal(path)
        renames = (journal and journal.renames) or []
        for name, file in renames:
            # The folder existed when the journal was written; it may have been removed since.
            place = self._place(file)
            if name is None or check_regular(self._tmp(name)) is not None:
                self._rename([(name, file)])
            elif check_regular(place) is None:  # otherwise it was renamed before the crash
                # Without `fsync`, a power failure can lose the file. Do not wait forever for it.
                logger.warning(
                    "%s is lost: the temporary file that the journal %r lists does not exist",
                    file,
                    path,
                )
        self._flush_parents(renames)
        _remove(path)

    # -- files -------------------------------------------------------------------------

    def _tmp(self, name: str) -> str:
        return f"{self.folder.tmp}/{name}"

    def _place(self, path: PurePosixPath) -> str:
        """The absolute path of a file. Creates its folder if necessary."""
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
        """Remove temporary files of crashed writers. Their age is not enough: clocks can be wrong.

        A writer holds a lock until its temporary files are renamed or listed in a journal. So
        the files are removed only while all locks are held. If a lock is taken, skip it this time.
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
            logger.warning(
                "cannot remove the temporary files of crashed writers in %r: %s", self._root, error
            )

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
