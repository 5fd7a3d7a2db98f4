"""StoreFolder: creates and identifies the folder of a filesystem store."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Final

from lo_kvs.kvs.filesystem.regular_files import check_folder, check_regular
from lo_kvs.kvs.filesystem.rights import PRIVATE, SHARED, Rights, make_folder, rights_in

logger = logging.getLogger(__name__)

OWN_FOLDER: Final = ".lo_kvs"
MARKER: Final = "format.json"
#: Names that may exist in a folder that becomes a store; none of them looks like a value.
HARMLESS: Final = frozenset({OWN_FOLDER, "lost+found", ".gitignore", ".gitkeep"})
#: Errors of a write into a read-only folder.
_READ_ONLY: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class ForeignFolder(OSError):
    """The folder is not a store, or its group permissions do not fit `group`."""


class StoreFolder:
    """The folder in which a store keeps its files.

    group   whether the users of one group share it; only then its group permissions are checked
    rights  mode and owner of new files and folders in it
    """

    def __init__(self, root: Path, *, fsync: bool, group: bool) -> None:
        self.path = str(root)
        self.own = f"{root}/{OWN_FOLDER}"
        self.locks, self.tmp, self.journals = (
            f"{self.own}/{name}" for name in ("locks", "tmp", "journal")
        )
        self.marker = f"{self.own}/{MARKER}"
        self._fsync = fsync
        self._group = group
        self._accepted: tuple[int, int] | None = None
        if not self._is_store():
            self._make(root)
        self.rights = self._take_over()
        #: Whether this process may write here; a store can be opened read-only.
        self.writable = all(_is_writable(each) for each in (self.path, self.tmp, self.journals))
        if not self.writable and self._is_store():
            logger.warning("%s: opened read-only: this user has no write permission", self.path)

    def look(self) -> bool:
        """Refresh the permissions; return whether this is still the folder that was accepted.

        If another store has replaced it, it can be accepted. Anything else raises `OSError`: it
        may be an empty mount point.
        """
        found = os.stat(self.path)
        self.rights = rights_in(found)
        if (found.st_dev, found.st_ino) == self._accepted:
            return True
        if not self._is_store():
            raise ForeignFolder(
                errno.ENOENT,
                "the folder was replaced by one that is not a store. Restore or mount the original",
            )
        self._take_over()
        return False

    def accept(self) -> None:
        """Accept the folder of the last `look` as the store: its format was checked."""
        self._accepted = self._seen

    def make(self, folder: str) -> None:
        """Create a folder below the store's, with its parents. Raises `OddFile` for links."""
        if check_folder(folder):
            return
        parent = os.path.dirname(folder)
        if parent != self.path:
            self.make(parent)
        make_folder(folder, self.rights)
        check_folder(folder)
        self.flush(parent)

    def check_above(self, path: str) -> None:
        """Raise `OddFile` if a parent of the relative `path` is a link or not a folder."""
        at = path.find("/")
        while at >= 0 and check_folder(f"{self.path}/{path[:at]}"):
            at = path.find("/", at + 1)

    def flush(self, folder: str) -> None:
        """Flush a folder's entries to the disk, so that a rename survives a crash."""
        if not self._fsync:
            return
        opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)

    def _is_store(self) -> bool:
        return check_folder(self.own) and check_regular(self.marker) is not None

    def _make(self, root: Path) -> None:
        """Create the folder. Raises `ForeignFolder` if it has other content."""
        try:
            with os.scandir(self.path) as entries:
                others = sorted(entry.name for entry in entries if entry.name not in HARMLESS)
        except FileNotFoundError:
            others = []
            self._make_root(root)
        # Another process that created the store meanwhile wrote the marker before any value.
        if others and not self._is_store():
            raise ForeignFolder(
                errno.ENOTEMPTY,
                f"it is not empty (it contains {others[0][:80]!r}) and has no "
                f"{OWN_FOLDER}/{MARKER}, so it is not a store. Choose an empty folder, or one that "
                "does not exist. If it is a store that lost this file, create the file with "
                '{"version": 1, "subdirs": false}',
            )

    def _make_root(self, root: Path) -> None:
        mode = SHARED if self._group else PRIVATE
        missing: list[Path] = []
        while not root.is_dir():
            missing.append(root)
            root = root.parent
        for each in reversed(missing):
            make_folder(str(each), Rights(mode, mode & 0o666, None))
            self.flush(str(each.parent))

    def _take_over(self) -> Rights:
        """Check the store's own folders, and record the identity of the folder."""
        found = os.stat(self.path)
        self.rights = rights = rights_in(found)
        if self._group and not rights.shared:
            raise ForeignFolder(
                errno.EPERM,
                "`group` is true, but the folder's group has no write permission. "
                f"Run: chmod -R g+rwX,o= {self.path!r}; find {self.path!r} -type d "
                "-exec chmod g+s '{}' +",
            )
        for folder in (self.own, self.locks, self.tmp, self.journals):
            try:
                self.make(folder)
            except OSError as error:
                # A backup that dropped empty folders can still be read.
                if error.errno not in _READ_ONLY or not self._is_store():
                    raise
        self._seen = (found.st_dev, found.st_ino)
        return rights


def _is_writable(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
