"""Journals: read, write and validate the list of renames of a multi-file change.

    {"renames": [[temporary name or null, path], …]}

A journal replaces and deletes files, and any user who can write to the folder can create one.
So a journal may list only names that the store itself creates: temporary names of 32
hexadecimal digits, and paths that `path_of` returns. Any other journal is refused and left in
place. The store raises an error until an administrator has removed it.
"""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple, TypeAlias

from lo_kvs.kvs.errors import shorten
from lo_kvs.kvs.filesystem.file_names import is_store_path
from lo_kvs.kvs.filesystem.regular_files import read_regular

#: About 15,000 files with the longest names. Larger journals are neither written nor read.
JOURNAL_BYTES_MAX: Final = 16 * 1024 * 1024

#: The renames of a change: a temporary name (`None`: remove the file) and the file's path.
Renames: TypeAlias = list[tuple[str | None, PurePosixPath]]

_TMP_NAME: Final = re.compile(r"[0-9a-f]{32}")


class JournalRefused(OSError):
    """A journal that this process does not execute."""


class Journal(NamedTuple):
    """The content of a journal file.

    renames  `None` if the file is empty, as after a power failure without `fsync`
    owner    the ID of the user who wrote it
    """

    path: str
    renames: Renames | None
    owner: int


def journal_text(renames: Renames) -> bytes:
    """The content of the journal file for a change."""
    text = json.dumps({"renames": [[name, str(path)] for name, path in renames]}).encode()
    if len(text) > JOURNAL_BYTES_MAX:
        raise OSError(errno.EFBIG, f"too many files for one change: {len(renames):,}")
    return text


def read_journal(path: str, *, subdirs: bool) -> Journal | None:
    """The journal at `path`, or `None` if its owner has just completed it.

    Raises `JournalRefused` if this store would not write such a journal, and `OddFile` if it is
    not a regular file.
    """
    try:
        text, found = read_regular(path, JOURNAL_BYTES_MAX)
    except FileNotFoundError:
        return None
    if not text.strip(b"\0"):
        return Journal(path, None, found.st_uid)
    return Journal(path, _renames(path, text, subdirs=subdirs), found.st_uid)


def of_another_user(journal: Journal) -> JournalRefused:
    """The error for the unfinished change of another user."""
    return JournalRefused(
        errno.EPERM,
        f"the unfinished change in {shorten(journal.path, 300)} was begun by user "
        f"{journal.owner}; user {os.geteuid()} cannot complete it. Open the store as user "
        f"{journal.owner}, or set `group: true` if these users share the store",
    )


def _renames(path: str, text: bytes, *, subdirs: bool) -> Renames:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise _refused(path, "it is not valid JSON") from None
    listed = content.get("renames") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(listed, list) or not listed:
        raise _refused(path, 'expected {"renames": [[name, path], ...]}')
    renames = [_rename(path, item, subdirs=subdirs) for item in listed]
    names = [name for name, _ in renames if name is not None]
    if len(set(names)) < len(names) or len({item for _, item in renames}) < len(renames):
        raise _refused(path, "it lists a file twice")
    return renames


def _rename(journal: str, item: Any, *, subdirs: bool) -> tuple[str | None, PurePosixPath]:
    if not isinstance(item, list) or len(item) != 2:
        raise _refused(journal, f"expected [name, path], got {shorten(item)}")
    name, path = item
    if name is not None and not (isinstance(name, str) and _TMP_NAME.fullmatch(name)):
        raise _refused(journal, f"{shorten(name)} is not the name of a temporary file")
    if not isinstance(path, str) or not is_store_path(path, subdirs=subdirs):
        raise _refused(journal, f"{shorten(path)} is not the path of a value in this store")
    return name, PurePosixPath(path)


def _refused(journal: str, reason: str) -> JournalRefused:
    return JournalRefused(
        errno.EINVAL,
        f"the journal {shorten(journal, 300)} is refused: {reason}. None of it was executed. "
        "Find out which program created it; remove it if it is not yours",
    )
