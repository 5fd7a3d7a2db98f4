"""The folder of a filesystem store: making it, knowing it, and whether it is still the same."""

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
#: What may lie in a folder that becomes a store: none of it looks like a value.
HARMLESS: Final = frozenset({OWN_FOLDER, "lost+found", ".gitignore", ".gitkeep"})
#: What a failed attempt to write into a folder raises when it may only be read.
_READ_ONLY: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class ForeignFolder(OSError):
    """The folder belongs to something else than a store, or is not shared as it should be."""


class StoreFolder:
    """The folder below which a store keeps its files.

    group   whether users of one group share it; only then is its rights' group looked at
    rights  what new files and folders in it get
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
        #: Whether this process may write here; a store can be opened to be read.
        self.writable = all(_is_writable(each) for each in (self.path, self.tmp, self.journals))
        if not self.writable and self._is_store():
            logger.warning("%s: this user may read the store and not write to it", self.path)

    def look(self) -> bool:
        """Take up the folder's rights; whether it is the folder that was accepted.

        Another store in its place can be accepted. Anything else there raises `OSError`: it may
        be the place where a disk is mounted.
        """
        found = os.stat(self.path)
        self.rights = rights_in(found)
        if (found.st_dev, found.st_ino) == self._accepted:
            return True
        if not self._is_store():
            raise ForeignFolder(
                errno.ENOENT, "the folder was replaced by one that is not a store; put it back"
            )
        self._take_over()
        return False

    def accept(self) -> None:
        """Take the folder that was last looked at for the store's own: its format is known."""
        self._accepted = self._seen

    def make(self, folder: str) -> None:
        """Make a folder below the store's, and those above it. Raises `OddFile` for links."""
        if check_folder(folder):
            return
        parent = os.path.dirname(folder)
        if parent != self.path:
            self.make(parent)
        make_folder(folder, self.rights)
        check_folder(folder)
        self.flush(parent)

    def check_above(self, path: str) -> None:
        """Raise `OddFile` where a folder above the relative `path` is a link or no folder."""
        at = path.find("/")
        while at >= 0 and check_folder(f"{self.path}/{path[:at]}"):
            at = path.find("/", at + 1)

    def flush(self, folder: str) -> None:
        """Put a folder's entries on the disk: without that, a rename may not survive a crash."""
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
        """Make the folder, unless something else lies in it already."""
        try:
            with os.scandir(self.path) as entries:
                others = sorted(entry.name for entry in entries if entry.name not in HARMLESS)
        except FileNotFoundError:
            others = []
            self._make_root(root)
        # Whoever made the store meanwhile wrote the marker before the first value.
        if others and not self._is_store():
            raise ForeignFolder(
                errno.ENOTEMPTY,
                f"it is not empty (it holds {others[0][:80]!r}) and has no {OWN_FOLDER}/{MARKER}, "
                "so it is not a store. Name an empty folder, or one that does not exist. If it "
                f'is a store that lost this file, put {{"version": 1, "subdirs": false}} there',
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
        """Check the store's own folders, and note which folder it is."""
        found = os.stat(self.path)
        self.rights = rights = rights_in(found)
        if self._group and not rights.shared:
            raise ForeignFolder(
                errno.EPERM,
                "its group may not write to it, and `group` is true. "
                f"Run: chmod -R g+rwX,o= {self.path!r}; find {self.path!r} -type d "
                "-exec chmod g+s '{}' +",
            )
        for folder in (self.own, self.locks, self.tmp, self.journals):
            try:
                self.make(folder)
            except OSError as error:
                # A backup without empty folders can be read.
                if error.errno not in _READ_ONLY or not self._is_store():
                    raise
        self._seen = (found.st_dev, found.st_ino)
        return rights


def _is_writable(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True)
