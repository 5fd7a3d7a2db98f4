"""Hostile folders: the store touches nothing outside its folder and never blocks a thread."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lo_kvs.kvs import FilesystemKVS, KVSError, Unavailable
from lo_kvs.kvs.filesystem.atomic_files import LOCKS, OWN_FOLDER
from lo_kvs.kvs.filesystem.journals import JOURNAL_BYTES_MAX

NAME = "0" * 32
LONG = "n" * 300
WAIT_MAX_S = 30  # far more than anything here takes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    return victim


async def within(call: Awaitable[Any]) -> Any:
    """The result of a call; fails the test if the call blocks."""
    return await asyncio.wait_for(call, WAIT_MAX_S)


def plant(folder: Path, content: bytes, subdirs: bool = False) -> Path:
    """Put a journal into the folder of a store."""
    FilesystemKVS(folder, subdirs=subdirs)
    (folder / OWN_FOLDER / "tmp" / NAME).write_text('"planted"')
    journal = folder / OWN_FOLDER / "journal" / ("f" * 32)
    journal.write_bytes(content)
    return journal


# -- journals ------------------------------------------------------------------------------


def renames(*listed: Any) -> bytes:
    return json.dumps({"renames": listed}).encode()


REFUSED = {
    "absolute path": renames([None, "{victim}"]),
    "path that leads out": renames([None, "../victim"]),
    "path that leads out below": renames([None, "_a/../../victim"]),
    "temporary name that leads out": renames(["../../../victim", "k.json"]),
    "absolute temporary name": renames(["{victim}", "k.json"]),
    "temporary name of a journal": renames(["../journal/" + "f" * 32, "k.json"]),
    "temporary name with a line break": renames([NAME + "\n", "k.json"]),
    "temporary name in capitals": renames(["A" * 32, "k.json"]),
    "temporary name that is a number": renames([0, "k.json"]),
    "the marker": renames([None, f"{OWN_FOLDER}/format.json"]),
    "a lock": renames([None, f"{OWN_FOLDER}/locks/00"]),
    "no value's name": renames([NAME, "README.md"]),
    "a name in capitals": renames([NAME, "K.json"]),
    "a hidden name": renames([NAME, ".k.json"]),
    "a folder of others": renames([NAME, "sub/k.json"]),
    "a dot before": renames([NAME, "./k.json"]),
    "two slashes": renames([NAME, "_a//k.json"]),
    "a key file that is none": renames([NAME, "%%0.key"]),
    "a key file elsewhere": renames([NAME, "_a/%%" + "0" * 64 + ".key"]),
    "a NUL": renames([NAME, "k\0.json"]),
    "half a character": renames([NAME, "\ud800.json"]),
    "an empty path": renames([NAME, ""]),
    "a path that is a number": renames([NAME, 1]),
    "a path that is null": renames([NAME, None]),
    "a file twice": renames([NAME, "k.json"], [None, "k.json"]),
    "a temporary name twice": renames([NAME, "k.json"], [NAME, "l.json"]),
    "one good, one bad": renames([NAME, "k.json"], [None, "../victim"]),
    "three parts": renames([NAME, "k.json", "x"]),
    "an object for a list": renames({"name": NAME, "path": "k.json"}),
    "a text for a list": b'{"renames": "ab"}',
    "no renames": b'{"renames": []}',
    "other names": b'{"moves": []}',
    "more names": b'{"renames": [[null, "k.json"]], "then": 1}',
    "a list": b"[]",
    "null": b"null",
    "a number of many digits": b"1" * 10_000,
    "not JSON": b"rm -rf",
    "half of it": renames([NAME, "k.json"], [None, "l.json"])[:-10],
    "other bytes": b"\xff\xfe{}",
    "a line break": b"\n",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"renames":' * 50_000 + b"1" + b"}" * 50_000,
}


@pytest.mark.parametrize("subdirs", [False, True])
@pytest.mark.parametrize("name", REFUSED)
def test_invalid_journal_is_refused(name: str, subdirs: bool, folder: Path, victim: Path) -> None:
    content = REFUSED[name].replace(b"{victim}", str(victim).encode())
    store = FilesystemKVS(folder, subdirs=subdirs)
    asyncio.run(store.set("k", 1))
    journal = plant(folder, content, subdirs)
    uses: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.get("k"),
        store.keys,
        store.dump,
        store.clear,
        lambda: store.set("k", 2),
        lambda: store.remove("k"),
    ]

    async def use() -> None:
        for each in uses:
            with pytest.raises(Unavailable, match=r"journal .* is refused: "):
                await each()

    asyncio.run(use())
    with pytest.raises(KVSError, match=r"journal .* is refused: "):
        FilesystemKVS(folder, subdirs=subdirs)
    assert victim.read_text() == "precious"
    assert journal.read_bytes() == content  # it stays for the administrator
    assert (folder / "k.json").read_bytes() == b"1"
    assert (folder / OWN_FOLDER / "tmp" / NAME).exists()
    journal.unlink()
    assert asyncio.run(store.get("k")) == 1


def test_journal_in_a_folder_without_a_marker_is_refused(tmp_path: Path, victim: Path) -> None:
    own = tmp_path / "store" / OWN_FOLDER
    for name in ("journal", "tmp", "locks"):
        (own / name).mkdir(parents=True)
    (own / "journal" / "aa").write_bytes(renames([None, str(victim)]))
    with pytest.raises(KVSError, match="is refused"):
        FilesystemKVS(own.parent)
    assert victim.read_text() == "precious"


def test_huge_journal_is_not_read(folder: Path) -> None:
    journal = plant(folder, b"")
    with journal.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    with pytest.raises(KVSError, match="1,099,511,627,776 bytes, over the limit"):
        FilesystemKVS(folder)
    with journal.open("wb") as file:
        file.truncate(JOURNAL_BYTES_MAX + 1)
    with pytest.raises(KVSError, match="over the limit of 16,777,216"):
        FilesystemKVS(folder)


def test_valid_journal_is_executed(folder: Path) -> None:
    deep = "_a/_b/k.json"
    digest = "%%" + "0" * 64
    listed = ([NAME, deep], [None, f"{digest}.json"], [None, f"{digest}.key"])
    plant(folder, renames(*listed), subdirs=True)
    assert asyncio.run(FilesystemKVS(folder, subdirs=True).get("a/b/k")) == "planted"


def test_journal_error_contains_no_terminal_sequence(folder: Path) -> None:
    journal = plant(folder, b"x")
    journal.rename(journal.with_name("\x1b]0;pwn\x07"))
    with pytest.raises(KVSError, match="is refused") as caught:
        FilesystemKVS(folder)
    assert "\x1b" not in str(caught.value)


# -- wrong file types -----------------------------------------------------------------


def a_socket(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made, in_folder(path.parent):
        made.bind(path.name)  # the whole path may be too long for a socket


@contextlib.contextmanager
def in_folder(folder: Path) -> Any:
    with contextlib.chdir(folder):
        yield


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "FIFO": (os.mkfifo, "is a FIFO"),
    "socket": (a_socket, "is a socket"),
    "folder": (os.mkdir, "is a folder"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "is a symbolic link"),
    "link to a file": (lambda path: path.symlink_to("../victim"), "is a symbolic link"),
    "link to itself": (lambda path: path.symlink_to(path.name), "is a symbolic link"),
    "link to nothing": (lambda path: path.symlink_to("../nothing"), "is a symbolic link"),
}
every_odd = pytest.mark.parametrize("odd", ODD)


def store_of(folder: Path, subdirs: bool = False) -> FilesystemKVS:
    store = FilesystemKVS(folder, subdirs=subdirs, fsync=False)
    asyncio.run(store.multiset({"good": 1, LONG: 1}))
    return store


@every_odd
@pytest.mark.parametrize("key", ["bad", LONG + "2"])
def test_wrong_file_type_in_place_of_a_value(
    odd: str, key: str, folder: Path, victim: Path
) -> None:
    make, found = ODD[odd]
    store = store_of(folder)
    asyncio.run(store.set(key, 1))
    (path,) = {*folder.glob("*.json")} - {*store_paths(folder, "good", LONG)}
    path.unlink()
    make(path)

    async def use() -> None:
        for _ in range(40):  # more calls than threads
            with pytest.raises(Unavailable, match=found):
                await within(store.get(key))
        for call in (store.set(key, 2), store.remove(key), store.exists(key)):
            with pytest.raises(Unavailable, match=found):
                await within(call)
        assert await within(store.get("good")) == 1
        await within(store.set("good", 2))
        assert await within(asyncio.to_thread(int, "3")) == 3
        if odd != "folder":  # those are not listed
            with pytest.raises(Unavailable, match=found):
                await within(store.dump())

    asyncio.run(use())
    assert victim.read_text() == "precious"


def store_paths(folder: Path, *keys: str) -> list[Path]:
    from lo_kvs.kvs.filesystem.file_names import path_of

    return [folder / path_of(key, subdirs=False) for key in keys]


@every_odd
def test_wrong_file_type_in_place_of_a_key(odd: str, folder: Path) -> None:
    make, found = ODD[odd]
    store = store_of(folder)
    (path,) = folder.glob("*.key")
    path.unlink()
    make(path)
    with pytest.raises(Unavailable, match=found):
        asyncio.run(within(store.keys()))
    with pytest.raises(Unavailable, match=found):
        asyncio.run(within(store.set(LONG, 2)))


@every_odd
def test_wrong_file_type_in_place_of_a_journal(odd: str, folder: Path) -> None:
    make, found = ODD[odd]
    store = store_of(folder)
    make(folder / OWN_FOLDER / "journal" / NAME)
    for call in (store.get, store.remove):
        with pytest.raises(Unavailable, match=found):
            asyncio.run(within(call("good")))
    with pytest.raises(KVSError, match=found):
        FilesystemKVS(folder)


@every_odd
def test_wrong_file_type_in_place_of_a_temporary_file(odd: str, folder: Path, victim: Path) -> None:
    make, found = ODD[odd]
    journal = plant(folder, renames([NAME, "k.json"], [None, "l.json"]))
    tmp = folder / OWN_FOLDER / "tmp" / NAME
    tmp.unlink()
    make(tmp)
    store = FilesystemKVS(folder)
    with pytest.raises(Unavailable, match=found):
        asyncio.run(within(store.get("k")))
    assert journal.exists()
    assert not (folder / "k.json").is_symlink()
    assert victim.read_text() == "precious"


@every_odd
def test_wrong_file_type_in_place_of_a_lock(odd: str, folder: Path, victim: Path) -> None:
    make, found = ODD[odd]
    store = FilesystemKVS(folder)
    for number in range(LOCKS):
        lock = folder / OWN_FOLDER / "locks" / f"{number:02x}"
        lock.unlink(missing_ok=True)
        make(lock)
    with pytest.raises(Unavailable, match=found):
        asyncio.run(within(store.set("k", 1)))
    assert victim.read_text() == "precious"
    assert asyncio.run(within(store.get("k"))) is None


@every_odd
def test_wrong_file_type_in_place_of_the_marker(odd: str, folder: Path) -> None:
    make, found = ODD[odd]
    FilesystemKVS(folder)
    marker = folder / OWN_FOLDER / "format.json"
    marker.unlink()
    make(marker)
    with pytest.raises(KVSError, match=found):
        FilesystemKVS(folder)


@pytest.mark.parametrize("content", [b"[" * 4000, b"\0" * 100_000, b"1", b'"x"', b"\xff"])
def test_invalid_marker_is_refused(content: bytes, folder: Path) -> None:
    FilesystemKVS(folder)
    (folder / OWN_FOLDER / "format.json").write_bytes(content)
    with pytest.raises(KVSError, match=r"is damaged|bytes, over"):
        FilesystemKVS(folder)


@pytest.mark.parametrize("name", [".", "locks", "tmp", "journal"])
def test_link_in_place_of_one_of_the_stores_own_folders(name: str, folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    FilesystemKVS(elsewhere)
    FilesystemKVS(folder)
    own = folder / OWN_FOLDER / name
    old = own.rename(folder.parent / "old") if name != "." else None
    if old is None:
        own = (folder / OWN_FOLDER).rename(folder.parent / "old").parent / "store" / OWN_FOLDER
    own.symlink_to(elsewhere / OWN_FOLDER / name)
    with pytest.raises(KVSError, match="is a symbolic link, not a folder"):
        FilesystemKVS(folder)
    own.unlink()
    own.write_bytes(b"")
    with pytest.raises(KVSError, match="is a regular file, not a folder"):
        FilesystemKVS(folder)


@pytest.mark.parametrize("depth", ["_x", "_a/_x", "_x/_a"])
def test_linked_subfolder_is_not_followed(depth: str, folder: Path) -> None:
    outside = folder.parent / "outside"
    (outside / "_a").mkdir(parents=True)
    for place in (outside, outside / "_a"):
        (place / "k.json").write_text('"outside"')
    store = store_of(folder, subdirs=True)
    link = folder / depth.partition("_x")[0] / "_x"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(outside)
    key = "/".join(part.removeprefix("_") for part in depth.split("/")) + "/k"

    async def use() -> None:
        for call in (store.get(key), store.set(key, 1), store.remove(key), store.keys()):
            with pytest.raises(Unavailable, match="is a symbolic link, not a folder"):
                await within(call)
        assert await within(store.get("good")) == 1

    asyncio.run(use())
    assert (outside / "k.json").read_text() == '"outside"'
    assert sorted(path.name for path in outside.rglob("*")) == ["_a", "k.json", "k.json"]


def test_hard_link_leaves_the_other_file_unchanged(folder: Path, victim: Path) -> None:
    store = store_of(folder)
    victim.write_text('"precious"')
    victim.chmod(0o640)
    (folder / "k.json").hardlink_to(victim)
    for number in range(LOCKS):
        lock = folder / OWN_FOLDER / "locks" / f"{number:02x}"
        lock.unlink(missing_ok=True)
        lock.hardlink_to(victim)
    asyncio.run(store.set("k", 1))
    asyncio.run(store.clear())
    assert victim.read_text() == '"precious"'
    assert victim.stat().st_mode & 0o777 == 0o640


def test_huge_value_is_not_read(folder: Path) -> None:
    store = store_of(folder)
    with (folder / "huge.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Unavailable, match="1,099,511,627,776 bytes, over the limit"):
        asyncio.run(within(store.get("huge")))
    assert asyncio.run(store.get("good")) == 1


def test_folders_deeper_than_any_key_are_not_listed(folder: Path) -> None:
    store = store_of(folder, subdirs=True)
    name = "_" + "d" * 200
    with contextlib.chdir(folder):
        for _ in range(30):  # 6 kB, more than a path may have
            Path(name).mkdir()
            os.chdir(name)
    assert sorted(asyncio.run(store.keys())) == sorted(["good", LONG])


# -- files of other programs -----------------------------------------------------------------


@pytest.mark.parametrize("other", ["package.json", "README.md", "src/", "_x/", ".git/", "K.json"])
def test_folder_of_another_program_is_refused(other: str, folder: Path) -> None:
    path = folder / other
    path.parent.mkdir()
    if other.endswith("/"):
        path.mkdir()
    else:
        path.write_text('{"mine": 1}')
    for subdirs in (True, False):
        with pytest.raises(
            KVSError, match=r"is not empty .* so it is not a store\. Choose an empty"
        ):
            FilesystemKVS(folder, subdirs=subdirs)
    assert [each.name for each in folder.iterdir()] == [path.name]  # nothing was made there


def test_empty_folders_become_stores(folder: Path) -> None:
    (folder / "lost+found").mkdir(parents=True)  # where a disk is mounted
    (folder / ".gitignore").write_text("*")
    asyncio.run(FilesystemKVS(folder).set("k", 1))
    assert asyncio.run(FilesystemKVS(folder).dump()) == {"k": 1}


def test_store_without_marker_opens_after_it_is_restored(folder: Path) -> None:
    store_of(folder)
    marker = folder / OWN_FOLDER / "format.json"
    text = marker.read_text()
    marker.unlink()
    with pytest.raises(KVSError, match=r'create the file with \{"version": 1, "subdirs": false\}'):
        FilesystemKVS(folder)
    marker.write_text(text)
    assert asyncio.run(FilesystemKVS(folder).get("good")) == 1


def test_concurrent_first_opens_share_one_store(folder: Path) -> None:
    """A value written by a faster process is not mistaken for another program's file."""
    from threading import Thread

    failed: list[BaseException] = []

    def open_and_write(at: int) -> None:
        try:
            asyncio.run(FilesystemKVS(folder, fsync=False).set(f"k{at}", at))
        except BaseException as error:  # noqa: BLE001 - reported by the assertion below
            failed.append(error)

    threads = [Thread(target=open_and_write, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert asyncio.run(FilesystemKVS(folder).dump()) == {f"k{at}": at for at in range(8)}


# -- a folder that changes while it is in use --------------------------------------------------


def test_folder_that_is_replaced_while_in_use(folder: Path) -> None:
    store = store_of(folder)
    away = folder.rename(folder.parent / "away")
    uses: list[Callable[[], Awaitable[Any]]] = [
        lambda: store.get("good"),
        lambda: store.set("good", 2),
        store.keys,
    ]

    async def refused(reason: str) -> None:
        for use in uses:
            with pytest.raises(Unavailable, match=reason):
                await use()

    asyncio.run(refused("No such file"))
    folder.mkdir()  # such as the place of a disk that is no longer mounted
    asyncio.run(refused("replaced by one that is not a store"))
    assert list(folder.iterdir()) == []
    folder.rmdir()
    FilesystemKVS(folder, subdirs=True)
    asyncio.run(refused("was created with"))
    folder.rename(folder.parent / "other names")
    asyncio.run(FilesystemKVS(folder).set("good", 5))
    assert asyncio.run(store.get("good")) == 5  # a backup was put there
    folder.rename(folder.parent / "backup")
    away.rename(folder)
    assert asyncio.run(store.get("good")) == 1


def test_lock_file_removed_while_it_is_held(folder: Path) -> None:
    """A process that waited for the removed file does not accept it as the lock."""
    from threading import Event, Thread

    from lo_kvs.kvs.filesystem.locks import Locks
    from lo_kvs.kvs.filesystem.store_folder import StoreFolder

    FilesystemKVS(folder)
    locks = Locks(StoreFolder(folder, fsync=False, group=False))
    lock = folder / OWN_FOLDER / "locks" / "00"
    waited, release = Event(), Event()

    def wait() -> None:
        with locks.holding([0]):
            waited.set()
            release.wait(WAIT_MAX_S)

    with locks.holding([0]):
        waiter = Thread(target=wait)
        waiter.start()
        inode = lock.stat().st_ino
        while not _is_waited_for(inode):
            assert waiter.is_alive()
        lock.unlink()
    assert waited.wait(WAIT_MAX_S)
    with pytest.raises(BlockingIOError), locks.holding([0], wait=False):
        pass
    release.set()
    waiter.join()


def _is_waited_for(inode: int) -> bool:
    """Whether a process waits for a lock on this file, according to the kernel."""
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and f":{inode} " in line for line in lines)


# -- clocks ----------------------------------------------------------------------------------


def test_temporary_file_of_a_running_writer_is_kept_whatever_the_clock_says(folder: Path) -> None:
    from lo_kvs.kvs.filesystem.locks import Locks
    from lo_kvs.kvs.filesystem.store_folder import StoreFolder

    FilesystemKVS(folder)
    tmp = folder / OWN_FOLDER / "tmp" / NAME
    tmp.write_bytes(b"1")
    two_hours_ago = time.time() - 7_200
    os.utime(tmp, (two_hours_ago, two_hours_ago))
    with Locks(StoreFolder(folder, fsync=False, group=False)).holding([5]):  # its writer's
        FilesystemKVS(folder)
        assert tmp.exists()
    FilesystemKVS(folder)
    assert not tmp.exists()
