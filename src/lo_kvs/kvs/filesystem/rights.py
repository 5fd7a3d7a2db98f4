"""Owner and mode of the files that a store creates: they follow the store's folder.

A folder that the store creates is private to its user (0700) or shared by a group (2770). An
existing folder keeps its permissions, and new files inherit them: a folder of mode 0750 gives
files of mode 0640. Other users never get write permission. The umask is ignored.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from lo_kvs.kvs.filesystem.regular_files import check_regular

PRIVATE: Final = 0o700
SHARED: Final = 0o2770  # set-group-ID: new files belong to the folder's group


class Rights(NamedTuple):
    """Mode and owner of new files and folders.

    owner  user and group, if root works in the folder of another user, so that this user can
           continue afterwards. Otherwise `None`: the process that creates a file owns it.
    """

    folder: int
    file: int
    owner: tuple[int, int] | None

    @property
    def shared(self) -> bool:
        """Whether the group has write permission."""
        return bool(self.file & stat.S_IWGRP)


def rights_in(folder: os.stat_result) -> Rights:
    """The permissions of new files in a store's folder."""
    of_folder = stat.S_IMODE(folder.st_mode) & 0o2775 | PRIVATE
    for_another = os.geteuid() == 0 and folder.st_uid != 0
    owner = (folder.st_uid, folder.st_gid) if for_another else None
    return Rights(of_folder, of_folder & 0o664, owner)


def mode_at(path: str, rights: Rights) -> int:
    """The mode for the next file at `path`: that of the current file, which a user may have set.

    A file of an unknown owner does not count: its mode could expose what we write.
    Raises `OddFile` if `path` is not a regular file.
    """
    found = check_regular(path)
    if found is None:
        return rights.file
    ours = os.geteuid() if rights.owner is None else rights.owner[0]
    known = found.st_uid == ours or rights.shared
    return stat.S_IMODE(found.st_mode) & 0o777 if known else rights.file


def give(file: int, rights: Rights, mode: int) -> None:
    """Set the owner and mode of an open file or folder."""
    if rights.owner is not None:
        os.fchown(file, *rights.owner)
    os.fchmod(file, mode)


def make_folder(path: str, rights: Rights) -> None:
    """Create a folder with the store's permissions; do nothing if the path exists."""
    try:
        os.mkdir(path, rights.folder)
    except FileExistsError:
        return
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        give(opened, rights, rights.folder)
    finally:
        os.close(opened)
