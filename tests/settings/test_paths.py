"""Paths in the settings: `~` and variables are expanded, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from lo_kvs.kvs import FilesystemKVS, KVSError, KVSRouter, MissingKVSParameters
from lo_kvs.kvs.checks.same_place import shared_place
from lo_kvs.kvs.configuration import Entry, read_block
from lo_kvs.settings.paths import expand_path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/of-this-user")
    monkeypatch.setenv("DATA_DIR", "/data")
    monkeypatch.setenv("TILDE", "~/data")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("NESTED", "$DATA_DIR/x")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~/states", "/home/of-this-user/states"),
        ("~", "/home/of-this-user"),
        (Path("~/states"), "/home/of-this-user/states"),
        ("$DATA_DIR/states", "/data/states"),
        ("${DATA_DIR}/a/${DATA_DIR}", "/data/a//data"),
        ("$TILDE/states", "/home/of-this-user/data/states"),
        ("states", "states"),
        ("a/~/b", "a/~/b"),
        ("states~", "states~"),
    ],
)
def test_path_is_expanded(path: str | Path, expanded: str) -> None:
    assert expand_path(path) == Path(expanded)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("$UNSET/states", "UNSET is not set; set it"),
        ("${UNSET}/states", "UNSET is not set; set it"),
        ("$EMPTY/states", "EMPTY is not set; set it"),  # would be /states
        ("$NESTED/states", "NESTED contains `\\$`"),
        ("${UNSET:-/data}/states", "must be followed by the name"),
        ("$/states", "must be followed by the name"),
        ("a$", "must be followed by the name"),
        ("$(pwd)/states", "must be followed by the name"),
        ("~no-such-user-here/states", "'~no-such-user-here' is unknown; use a full path"),
    ],
)
def test_path_that_cannot_be_expanded(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        expand_path(path)


def test_store_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("home", "data", "work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "work")
    FilesystemKVS("~/by-hand")
    KVSRouter(default={"type": "filesystem", "path": "~/added"})
    block = {
        "default": {"type": "filesystem", "path": "~/states"},
        "other": {"type": "filesystem", "path": "$DATA_DIR/states"},
    }
    KVSRouter().configure(block)
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == [
        "added",
        "by-hand",
        "states",
    ]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["states"]
    assert list((tmp_path / "work").iterdir()) == []
    (home, _), _ = read_block(block, is_reserved=lambda _: False)
    written_out = Entry("other", "filesystem", {"path": str(tmp_path / "home" / "states")})
    assert shared_place(home, written_out) is not None


def test_path_that_cannot_be_expanded_is_a_fault_of_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entry = {"type": "filesystem", "path": "$UNSET/states"}
    with pytest.raises(MissingKVSParameters, match=r"kvs\.default\.path: .*UNSET is not set"):
        KVSRouter().configure({"default": entry})
    with pytest.raises(MissingKVSParameters, match=r"kvs\.default\.path: .*UNSET is not set"):
        KVSRouter(default=entry)
    with pytest.raises(KVSError, match="UNSET is not set"):
        FilesystemKVS("$UNSET/states")
    assert list(tmp_path.iterdir()) == []
