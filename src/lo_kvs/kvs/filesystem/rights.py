"""Owner and modes of the files that a store makes: they follow the store's folder.

A folder that the store makes is for its user alone (0700), or for a group (2770). A folder
that is there keeps its rights, and what is made in it gets the same ones: 0750 gives files of
0640. Nobody else may ever write. The umask plays no part.
"""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from lo_kvs.kvs.filesystem.regular_files import check_regular

PRIVATE: Final = 0o700
SHARED: Final = 0o2770  # set-group-ID: new files belong to the folder's group


class Rights(NamedTuple):
    """What new files and folders get.

    owner  user and group, where root works in the folder of another user: that one has to be
           able to go on. Else `None`: they belong to who makes them.
    """

    folder: int
    file: int
    owner: tuple[int, int] | None

    @property
    def shared(self) -> bool:
        """Whether the users of a group may write."""
        return bool(self.file & stat.S_IWGRP)


def rights_in(folder: os.stat_result) -> Rights:
    """The rights of what is made in a store's folder."""
    of_folder = stat.S_IMODE(folder.st_mode) & 0o2775 | PRIVATE
    for_another = os.geteuid() == 0 and folder.st_uid != 0
    owner = (folder.st_uid, folder.st_gid) if for_another else None
    return Rights(of_folder, of_folder & 0o664, owner)


def mode_at(path: str, rights: Rights) -> int:
    """The mode for the next file at `path`: that of the present one, which somebody may have set.

    Not where the file belongs to a stranger, who could open what we write to others.
    Raises `OddFile` where there is no regular file.
    """
    found = check_regular(path)
    if found is None:
        return rights.file
    ours = os.geteuid() if rights.owner is None else rights.owner[0]
    known = found.st_uid == ours or rights.shared
    return stat.S_IMODE(found.st_mode) & 0o777 if known else rights.file


def give(file: int, rights: Rights, mode: int) -> None:
    """Give an open file or folder its owner and mode."""
    if rights.owner is not None:
        os.fchown(file, *rights.owner)
    os.fchmod(file, mode)


def make_folder(path: str, rights: Rights) -> None:
    """Make a folder with the store's rights; nothing is done where something is there."""
    try:
        os.mkdir(path, rights.folder)
    except FileExistsError:
        return
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        give(opened, rights, rights.folder)
    finally:
        os.close(opened)
