"""Files that are written where others may have put something in their place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lo_kvs.output_files import (
    PRIVATE,
    OutputRefused,
    appended,
    check_place,
    replaced,
)


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def put(path: Path, text: str = "new", kind: int = PRIVATE) -> None:
    with replaced(path, kind) as out:
        out.write(text.encode())


def test_new_file_is_private_or_as_the_umask_has_it(tmp_path: Path) -> None:
    put(tmp_path / "a")
    put(tmp_path / "b", kind=0o666)
    assert (mode(tmp_path / "a"), mode(tmp_path / "b")) == (0o600, 0o644)
    assert (tmp_path / "a").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 2


def test_permissions_of_an_own_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)
    put(path)
    assert (path.read_text(), mode(path)) == ("new", 0o640)


def test_link_is_replaced_and_its_permissions_do_not_count(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o666)
    for name, target in (("link", victim), ("dangling", tmp_path / "nothing")):
        link = tmp_path / name
        link.symlink_to(target)
        put(link)
        assert not link.is_symlink()
        assert (link.read_text(), mode(link)) == ("new", 0o600)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


def test_hard_link_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "a").hardlink_to(victim)
    put(tmp_path / "a")
    assert (victim.read_text(), (tmp_path / "a").read_text()) == ("precious", "new")


def test_name_of_the_part_is_not_known_before(tmp_path: Path) -> None:
    names = set()
    for _ in range(3):
        with replaced(tmp_path / "a", PRIVATE):
            (part,) = [path for path in tmp_path.iterdir() if path.name != "a"]
            names.add(part.name)
            assert mode(part) == 0o600
    assert len(names) == 3


def test_error_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(TypeError), replaced(path) as out:
        out.writelines([b"half", None])  # type: ignore[list-item]
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
    assert path.read_text() == "old"


def test_own_pipes_and_descriptors_are_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    try:
        put(pipe)
        assert os.read(reader, 10) == b"new"
        with replaced(f"/dev/fd/{reader}") as out:
            out.write(b"more")
        assert os.read(reader, 10) == b"more"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_descriptor_that_is_a_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("wb", buffering=0) as file:
        file.write(b"head ")
        put(Path(f"/proc/self/fd/{file.fileno()}"))
    assert path.read_text() == "head new"


def test_appended_file_is_private_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "rejects"
    for _ in range(2):
        with appended(path) as out:
            out.write(b"x")
    assert (path.read_text(), mode(path)) == ("xx", 0o600)


@pytest.mark.parametrize("kind", ["symlink", "dangling", "pipe", "hard link", "device"])
def test_only_own_regular_files_are_appended_to(kind: str, tmp_path: Path) -> None:
    path, victim = tmp_path / "rejects", tmp_path / "victim"
    victim.write_text("precious")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "device":
        path = Path(os.devnull)
    else:
        path.symlink_to(victim if kind == "symlink" else tmp_path / "nothing")
    with pytest.raises(OutputRefused) as raised:
        appended(path)
    assert raised.value.filename == str(path)
    assert victim.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


if os.geteuid() == 0:  # only root can give a file to somebody else

    def test_private_data_is_not_written_to_files_of_others(tmp_path: Path) -> None:
        path, pipe = tmp_path / "a", tmp_path / "pipe"
        path.write_text("theirs")
        path.chmod(0o666)
        os.chown(path, 12345, 12345)
        put(path)
        assert (mode(path), path.stat().st_uid) == (0o600, 0)
        os.mkfifo(pipe)
        os.chown(pipe, 12345, 12345)
        with pytest.raises(OutputRefused, match="belongs to another user"), replaced(pipe):
            pass


def test_place_is_checked_before_the_work(tmp_path: Path) -> None:
    check_place(tmp_path / "a")
    with pytest.raises(IsADirectoryError):
        check_place(tmp_path)
    with pytest.raises(FileNotFoundError):
        check_place(tmp_path / "nothing" / "a")
