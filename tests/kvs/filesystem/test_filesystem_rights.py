"""Owners and modes: private by default, shared with `group`, usable with read permission only."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lo_kvs.kvs import FilesystemKVS, InMemoryKVS, KVSError, Unavailable
from lo_kvs.kvs.filesystem.atomic_files import OWN_FOLDER
from lo_kvs.kvs.filesystem.file_names import path_of

SERVICE = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach; pytest's temporary folders are private."""
    with tempfile.TemporaryDirectory(prefix="lokvs-") as name:
        Path(name).chmod(0o755)
        yield Path(name) / "store"


def as_user(user: int, work: Callable[[], None]) -> None:
    """Run `work` as another user in a child process."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(SERVICE, SERVICE, SERVICE)
            os.setresuid(user, user, user)
            work()
            code = 0
        except BaseException as error:  # noqa: BLE001 - the child ends here in any case
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("group", [False, True])
def test_new_store_has_the_documented_permissions(umask: int, group: bool, folder: Path) -> None:
    old = os.umask(umask)
    try:
        store = FilesystemKVS(folder, subdirs=True, group=group)
        asyncio.run(store.multiset({"a/b": 1, "k": 1, "n" * 300: 1}))
    finally:
        os.umask(old)
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    expected = (0o2770, 0o660) if group else (0o700, 0o600)
    assert {path.stat().st_mode & 0o7777 for path in folders} == {expected[0]}
    assert modes(folder) == {expected[1]}


def test_files_follow_the_folder_and_keep_their_own_mode(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o750)
    store = FilesystemKVS(folder)
    asyncio.run(store.set("k", 1))
    assert modes(folder) == {0o640}
    assert folder.stat().st_mode & 0o777 == 0o750
    (folder / "k.json").chmod(0o604)
    asyncio.run(store.set("k", 2))
    assert (folder / "k.json").stat().st_mode & 0o777 == 0o604


def test_group_requires_a_group_writable_folder(folder: Path) -> None:
    FilesystemKVS(folder)
    with pytest.raises(KVSError, match="`group` is true"):
        FilesystemKVS(folder, group=True)


@as_root
def test_service_continues_after_a_command_by_root(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, SERVICE, SERVICE)
    keys = {f"k{at}": at for at in range(100)}
    as_user(SERVICE, lambda: asyncio.run(FilesystemKVS(folder, fsync=False).set("k0", 0)))
    asyncio.run(FilesystemKVS(folder, fsync=False).multiset(keys))
    as_user(SERVICE, lambda: asyncio.run(FilesystemKVS(folder, fsync=False).multiset(keys)))


@as_root
def test_store_is_readable_with_read_permission_only(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o755)
    asyncio.run(FilesystemKVS(folder).set("k", 1))
    before = sorted(str(path) for path in folder.rglob("*"))

    def read() -> None:
        store = FilesystemKVS(folder)
        assert asyncio.run(store.dump()) == {"k": 1}
        with pytest.raises(Unavailable, match="Permission denied"):
            asyncio.run(store.set("k", 2))

    as_user(SERVICE, read)
    assert sorted(str(path) for path in folder.rglob("*")) == before


@as_root
@pytest.mark.parametrize("group", [False, True])
def test_journal_of_another_user(group: bool, folder: Path) -> None:
    store = FilesystemKVS(folder, group=group)
    asyncio.run(store.multiset({"k": 1, "other": 1}))
    tmp, journal = (folder / OWN_FOLDER / name / ("a" * 32) for name in ("tmp", "journal"))
    tmp.write_text("2")
    paths = [str(path_of(key, subdirs=False)) for key in ("k", "l")]
    journal.write_text(json.dumps({"renames": [["a" * 32, paths[0]], [None, paths[1]]]}))
    os.chown(journal, SERVICE, SERVICE)
    if group:
        assert asyncio.run(store.get("k")) == 2
        return
    for call in (store.get, store.remove):
        with pytest.raises(Unavailable, match=f"begun by user {SERVICE}"):
            asyncio.run(call("k"))
    with pytest.raises(Unavailable, match="begun by user"):
        asyncio.run(FilesystemKVS(folder).keys())
    assert asyncio.run(store.get("other")) == 1
    assert journal.exists()
    assert (folder / "k.json").read_text() == "1"


def test_package_imports_on_systems_without_file_locks(tmp_path: Path) -> None:
    program = (
        "import os, sys; sys.modules['fcntl'] = None\n"
        "del os.register_at_fork, os.fork\n"
        "from lo_kvs.kvs import FilesystemKVS, InMemoryKVS, KVSError\n"
        "InMemoryKVS()\n"
        "try: FilesystemKVS('x')\n"
        "except KVSError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "needs file locks" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_dump_file_is_private_and_follows_no_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    linked = tmp_path / "linked.json"
    linked.symlink_to(precious)

    async def main() -> None:
        async with InMemoryKVS() as store:
            await store.set("key", [1])
            for file in (tmp_path / "new.json", linked):
                await store.dump(file)
                assert file.stat().st_mode & 0o777 == 0o600
                assert json.loads(file.read_text()) == {"key": [1]}

    before = os.umask(0o022)
    try:
        asyncio.run(main())
    finally:
        os.umask(before)
    assert precious.read_text() == "mine"
    assert not linked.is_symlink()
