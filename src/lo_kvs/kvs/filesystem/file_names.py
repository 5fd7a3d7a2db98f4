"""Keys as file names: injective, readable, and safe on every file system.

    Internal,w.count,STUDENT:s1       ->  ^I^nternal,w.count,^STUDENT%3a^s1.json
    notes/2026/essay  (with subdirs)  ->  _notes/_2026/essay.json

Lower-case letters, digits and some punctuation are kept. `^` switches between lower and upper
case, so that names also differ on case-insensitive file systems. Every other character is
written as `%xx` per UTF-8 byte, and so are a leading `.` or `_` and a trailing `.`, which some
systems drop. File names never start with an underscore and folder names always do, so `_foo`
and `foo/…` never collide. If a name would be too long, the file is named by a digest,
`%%<sha256>.json`, and a `.key` file beside it holds the key.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Final

from lo_kvs.kvs.filesystem.regular_files import FILE_BYTES_MAX, read_regular

#: Longest escaped part: common file systems allow 255 bytes, including our suffix.
PART_LENGTH_MAX: Final = 240
#: Longest relative path; system calls take 4,096 bytes, including the path of the folder.
PATH_LENGTH_MAX: Final = 1024

VALUE_SUFFIX: Final = ".json"
KEY_SUFFIX: Final = ".key"

_DIGEST_FILE: Final = re.compile(r"%%[0-9a-f]{64}\.(json|key)")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.,=+@~()[]")
# Windows treats these names as devices, with any extension.
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul"] + [f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)]
)


def path_of(key: str, *, subdirs: bool) -> PurePosixPath:
    """The path of the file with the value of `key`, relative to the store's folder."""
    *folders, name = key.split("/") if subdirs else [key]
    parts = ["_" + _escape(folder) for folder in folders] + [_escape(name) + VALUE_SUFFIX]
    too_long = max(map(len, parts)) > PART_LENGTH_MAX or sum(map(len, parts)) > PATH_LENGTH_MAX
    return PurePosixPath(_digest(key) + VALUE_SUFFIX) if too_long else PurePosixPath(*parts)


def is_digest(path: PurePosixPath) -> bool:
    """Whether the name is a digest, so that the key is in a `.key` file beside the value."""
    return path.name.startswith("%%")


def key_of(path: PurePosixPath, root: Path, *, subdirs: bool) -> str | None:
    """The key whose value is in the file `path`, or `None` if it is not a file of the store.

    Raises `OSError` if the file that holds the key cannot be read.
    """
    if not is_digest(path):
        return _key_in_name(path, subdirs=subdirs)
    if path.suffix != VALUE_SUFFIX:
        return None
    try:
        text, _ = read_regular(f"{root}/{path.with_suffix(KEY_SUFFIX)}", FILE_BYTES_MAX)
        key = text.decode()
    except (ValueError, FileNotFoundError):
        return None
    return key if path_of(key, subdirs=subdirs) == path else None


def is_store_path(path: str, *, subdirs: bool) -> bool:
    """Whether a store creates files with this name, for a value or for a key."""
    if path.startswith("%%"):
        return _DIGEST_FILE.fullmatch(path) is not None
    found = PurePosixPath(path)
    return str(found) == path and _key_in_name(found, subdirs=subdirs) is not None


def _key_in_name(path: PurePosixPath, *, subdirs: bool) -> str | None:
    if path.suffix != VALUE_SUFFIX:
        return None
    try:
        parts = [_unescape(part.removeprefix("_")) for part in path.parts[:-1]]
        key = "/".join([*parts, _unescape(path.name.removesuffix(VALUE_SUFFIX))])
        # Each key has exactly one name; a similar name is a file of another program.
        return key if path_of(key, subdirs=subdirs) == path else None
    except ValueError:
        return None


def _digest(key: str) -> str:
    return "%%" + hashlib.sha256(key.encode()).hexdigest()


def _escape(part: str) -> str:
    if not part:
        return "%"
    out: list[str] = []
    upper = False
    for character in part:
        if character.isascii() and character.isalpha():
            if character.isupper() is not upper:
                upper = not upper
                out.append("^")
            out.append(character)
        elif character in _PLAIN:
            out.append(character)
        else:
            out += [f"%{byte:02x}" for byte in character.encode()]
    if part[0] in "._" or part.partition(".")[0] in _DEVICES:
        out[0] = f"%{ord(part[0]):02x}"
    if part[-1] == ".":
        out[-1] = "%2e"
    return "".join(out)


def _unescape(text: str) -> str:
    if text == "%":
        return ""
    out = bytearray()
    upper = False
    at = 0
    while at < len(text):
        character = text[at]
        if character == "^":
            upper = not upper
        elif character == "%":
            out.append(int(text[at + 1 : at + 3], 16))
            at += 2
        else:
            out += (character.upper() if upper else character.lower()).encode()
        at += 1
    return out.decode()
