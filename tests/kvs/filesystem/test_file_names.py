"""File names: unique per key, safe on every file system, and reversible."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath

import hypothesis
import hypothesis.strategies as st
import pytest

from lo_kvs.kvs.filesystem.file_names import is_digest, key_of, path_of
from lo_kvs.testing.contract.cases import KEYS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
#: Similar keys, mostly made of the characters used in escapes.
TRICKY = st.text(st.sampled_from("aAbB%^_./\\0e1é\u0301É \0.con"), max_size=12)
KEY = st.one_of(TEXT, TRICKY, st.sampled_from(KEYS))


def as_seen_elsewhere(path: PurePosixPath) -> str:
    """A path as seen by a file system that ignores case and Unicode normalization."""
    return unicodedata.normalize("NFC", str(path)).casefold()


@hypothesis.given(st.lists(KEY, unique=True, max_size=8), st.booleans())
def test_different_keys_get_different_names_on_every_file_system(
    keys: list[str], subdirs: bool
) -> None:
    names = {as_seen_elsewhere(path_of(key, subdirs=subdirs)) for key in keys}
    assert len(names) == len(keys)


@pytest.mark.parametrize("subdirs", [True, False])
def test_hostile_keys_get_different_names(subdirs: bool) -> None:
    paths = [path_of(key, subdirs=subdirs) for key in KEYS]
    assert len({as_seen_elsewhere(path) for path in paths}) == len(KEYS)
    # A file where another key needs a folder, or the other way round, would be a clash as well.
    folders = {as_seen_elsewhere(folder) for path in paths for folder in path.parents}
    assert folders.isdisjoint(as_seen_elsewhere(path) for path in paths)


@hypothesis.given(KEY, st.booleans())
def test_names_are_safe_and_reversible(key: str, subdirs: bool) -> None:
    path = path_of(key, subdirs=subdirs)
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert "." not in path.parts
    assert all(folder.startswith("_") and len(folder) > 1 for folder in path.parts[:-1])
    assert path.name.endswith(".json")
    assert not path.name.startswith(("_", "."))
    assert len(path.parts) == 1 or subdirs
    for part in path.parts:
        assert part.isascii()
        assert part.isprintable()
        assert not set(part) & set('/\\:*?"<>| ')
        assert not part.endswith(".")
        assert len(part.encode()) <= 255
    assert len(str(path)) <= 2_048
    assert path.name.lower().partition(".")[0] not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    if not is_digest(path):
        assert key_of(path, Path("/nowhere"), subdirs=subdirs) == key


def test_names_are_readable() -> None:
    key = "Internal,w.count,EventField.doc_id:d1,STUDENT:s1"
    assert str(path_of(key, subdirs=True)) == (
        "^I^nternal,w.count,^E^vent^F^ield.doc_id%3ad1,^STUDENT%3a^s1.json"
    )
    assert str(path_of("notes/2026/essay", subdirs=True)) == "_notes/_2026/essay.json"
    assert str(path_of("notes/2026/essay", subdirs=False)) == "notes%2f2026%2fessay.json"


@pytest.mark.parametrize(
    ("path", "subdirs"),
    [
        ("A.json", False),  # lower case without its sign
        ("%61.json", False),  # an escape that is not needed
        ("%4.json", False),
        ("%zz.json", False),
        ("%ff.json", False),  # not UTF-8
        ("a.JSON", False),
        ("a.txt", False),
        ("a", False),
        (".json", False),
        ("a b.json", False),
        ("%%" + "0" * 64 + ".json", False),  # a digest without its `.key` file
        ("folder/a.json", True),
        ("_folder/a.json", False),
        ("n" * 241 + ".json", False),  # longer than any name that the store makes
    ],
)
def test_foreign_files_are_not_keys(path: str, subdirs: bool, tmp_path: Path) -> None:
    assert key_of(PurePosixPath(path), tmp_path, subdirs=subdirs) is None
