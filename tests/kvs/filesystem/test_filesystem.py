"""The filesystem store's folder, crashes, full disks, and other processes."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from tests.kvs.children import (
    COMMITTED,
    UNAVAILABLE,
    UNKNOWN,
    What,
    commit_in_child,
    run_in_child,
)

from lo_kvs.kvs import (
    Change,
    FilesystemKVS,
    Guard,
    KVSError,
    OutcomeUnknown,
    Unavailable,
)
from lo_kvs.kvs.filesystem.atomic_files import LOCKS, OWN_FOLDER, AtomicFiles
from lo_kvs.kvs.filesystem.locks import lock_number as _lock_number

LONG = "n" * 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


def everything(folder: Path, subdirs: bool = False) -> dict[str, object]:
    """The content of the folder, as a newly opened store dumps it."""

    async def dump() -> dict[str, object]:
        async with FilesystemKVS(folder, subdirs=subdirs, fsync=False) as store:
            dumped = await store.dump()
            assert sorted(await store.keys()) == sorted(dumped)
            return dict(dumped)

    return asyncio.run(dump())


def own_files(folder: Path) -> list[str]:
    """The files in the store's own folder, except locks and the format."""
    found = (folder / OWN_FOLDER).rglob("*")
    names = [str(path.relative_to(folder / OWN_FOLDER)) for path in found if path.is_file()]
    return [name for name in names if not name.startswith("locks/") and name != "format.json"]


# -- the folder ------------------------------------------------------------------------


def test_layout(folder: Path) -> None:
    async def write() -> None:
        async with FilesystemKVS(folder, subdirs=True) as store:
            await store.multiset({"a/b/c": {"x": [1]}, "_foo": 2, "foo/bar": 3, LONG: 4})

    asyncio.run(write())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    long_ones = {file for file in files if file.startswith("%%")}
    rest = {file for file in files - long_ones if not file.startswith(OWN_FOLDER)}
    assert rest == {"_a/_b/c.json", "%5ffoo.json", "_foo/bar.json"}
    assert json.loads((folder / "_a/_b/c.json").read_bytes()) == {"x": [1]}
    assert sorted(Path(file).suffix for file in long_ones) == [".json", ".key"]
    (key_file,) = (file for file in long_ones if file.endswith(".key"))
    assert (folder / key_file).read_text() == LONG
    assert own_files(folder) == []


def test_nothing_is_written_outside_the_folder(folder: Path) -> None:
    hostile = ["../x", "..", "/etc/x", "a/../../x", "./../x", "\0/../x", "~/x", ".", "../store/x"]

    async def write() -> None:
        for subdirs, place in ((False, folder), (True, folder.parent / "subdirs")):
            async with FilesystemKVS(place, subdirs=subdirs) as store:
                await store.multiset(dict.fromkeys(hostile, 1))
                assert sorted(await store.keys()) == sorted(hostile)

    asyncio.run(write())
    assert sorted(path.name for path in folder.parent.iterdir()) == ["store", "subdirs"]


def test_foreign_files_are_neither_listed_nor_removed(folder: Path) -> None:
    others = [
        "README.txt",
        "A.json",
        "notes/b.json",
        "_c",
        ".hidden.json",
        "%%0.json",
        "x.json.tmp",
    ]

    async def use() -> None:
        async with FilesystemKVS(folder, subdirs=True) as store:
            for other in others:
                (folder / other).parent.mkdir(exist_ok=True)
                (folder / other).write_bytes(b"1")
            await store.set("key", 1)
            assert await store.dump() == {"key": 1}
            await store.clear()
            assert await store.keys() == []

    asyncio.run(use())
    assert all((folder / other).exists() for other in others)


def test_folder_in_place_of_a_file_affects_only_that_key(folder: Path) -> None:
    async def use() -> None:
        async with FilesystemKVS(folder) as store:
            (folder / "bad.json").mkdir()
            for use in (lambda: store.get("bad"), lambda: store.set("bad", 1)):
                with pytest.raises(Unavailable):
                    await use()
            await store.set("good", 1)
            change = Change("good", b"1", {"good": b"2", "bad": b"2"})
            (outcome,) = await store.commit([change])
            assert isinstance(outcome, OutcomeUnknown | Unavailable)
            others = [f"key {at}" for at in range(LOCKS)]
            free = [key for key in others if _number(key) not in {_number("good"), _number("bad")}]
            await store.multiset(dict.fromkeys(free, 1))
            assert await store.multiget(free) == [1] * len(free)

    def _number(key: str) -> int:
        return _lock_number(PurePosixPath(key.replace(" ", "%20") + ".json"))

    asyncio.run(use())


def test_relative_path_ignores_later_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = FilesystemKVS(".lo_kvs")
    monkeypatch.chdir(tmp_path / "elsewhere")
    asyncio.run(store.set("key", 1))
    assert (tmp_path / ".lo_kvs" / "key.json").read_bytes() == b"1"


@pytest.mark.parametrize("path", ["file", "file/below", "nul\0", "/proc/nothing/store"])
def test_path_that_cannot_be_a_folder(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KVSError, match=r"cannot hold a store: .*`path` must name a folder"):
        FilesystemKVS(tmp_path / path)


@pytest.fixture
def readable_by_all() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="lokvs-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_folder_without_write_permission(readable_by_all: Path) -> None:
    folder = readable_by_all / "store"
    folder.mkdir()
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)  # root can write everywhere
    try:
        with pytest.raises(KVSError, match="cannot hold a store: Permission denied"):
            FilesystemKVS(folder)
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_folder_created_with_other_options(folder: Path) -> None:
    FilesystemKVS(folder, subdirs=True)
    FilesystemKVS(folder, subdirs=True)
    with pytest.raises(KVSError, match=r"was created with .*'subdirs': True.* not with"):
        FilesystemKVS(folder)
    marker = folder / OWN_FOLDER / "format.json"
    assert json.loads(marker.read_bytes()) == {"version": 1, "subdirs": True}
    marker.write_text('{"version": 2, "subdirs": true}')
    with pytest.raises(KVSError, match="'version': 2"):
        FilesystemKVS(folder, subdirs=True)
    marker.write_text("{")
    with pytest.raises(KVSError, match="is damaged"):
        FilesystemKVS(folder, subdirs=True)


# -- crashes and full disks --------------------------------------------------------------

OLD = {"a": 1, "b": 1, "c": 1, "deep/er/key": 1, LONG: 1}
CHANGES = {
    "one key": Change("a", b"1", {"a": b"2"}),
    "two keys": Change("a", b"1", {"a": b"2", "b": b"2"}),
    "two new keys": Change("x/i", None, {"x/i": b"2", "x/e": b"2"}),
    "set and remove": Change("c", b"1", {"c": None, "a": b"2", "deep/er/key": b"2"}),
    "remove": Change("c", b"1", {"c": None}),
    "remove a long one": Change(LONG, b"1", {LONG: None}),
    "a new long one": Change(LONG + "2", None, {LONG + "2": b"2"}),
    "a long one and another": Change(LONG, b"1", {LONG: b"2", "a": None}),
}


def after(change: Change) -> dict[str, object]:
    values = {**OLD, **{key: data and json.loads(data) for key, data in change.puts.items()}}
    return {key: value for key, value in values.items() if value is not None}


@pytest.mark.parametrize("what", What)
@pytest.mark.parametrize("name", CHANGES)
def test_change_is_atomic_whichever_step_fails(name: str, what: What, fast_path: Path) -> None:
    change = CHANGES[name]
    names = list({**OLD, **change.puts})
    before = fast_path / "before"
    asyncio.run(FilesystemKVS(before, subdirs=True, fsync=False).multiset(OLD))
    for lock in (before / OWN_FOLDER / "locks").iterdir():
        lock.unlink()
    for at in range(1, 100):
        folder = fast_path / str(at)
        shutil.copytree(before, folder)
        store = FilesystemKVS(folder, subdirs=True)
        end = commit_in_child(store, folder, change, what, at)
        # First read and list with a store that was open all the time, then with a new one.
        read = asyncio.run(store.multiget(names))
        seen = {name: value for name, value in zip(names, read, strict=True) if value is not None}
        assert asyncio.run(store.dump()) == seen, (at, end)
        assert everything(folder, subdirs=True) == seen, (at, end)
        assert seen in (OLD, after(change)), (at, end)
        if end.outcome == COMMITTED:
            assert seen == after(change), (at, end)
        elif end.outcome == UNAVAILABLE:
            assert seen == OLD, (at, end)
        else:
            assert end.outcome in {None, UNKNOWN}, (at, end)
        if what is What.FULL:  # a crash leaves temporary files, an error does not
            assert own_files(folder) == [], (at, end)
        # Whatever happened, the next writer succeeds.
        later = FilesystemKVS(folder, subdirs=True, fsync=False)
        asyncio.run(later.multiset(dict.fromkeys(change.puts, 3)))
        assert everything(folder, subdirs=True) == {**seen, **dict.fromkeys(change.puts, 3)}
        if not end.reached:
            assert end.outcome == COMMITTED
            assert at > 4
            return
    pytest.fail("a change took more than 100 steps")


def test_first_opening_killed_at_any_moment(folder: Path) -> None:
    async def open_one() -> None:
        FilesystemKVS(folder)

    for delay_ms in range(8):
        pid = run_in_child(open_one())
        time.sleep(delay_ms / 1000)  # the moment is what is tested
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert everything(folder) == {}


def test_writer_killed_at_any_moment(folder: Path) -> None:
    """Pairs are never torn apart, and every acknowledged change is there."""
    seed = random.randrange(10**6)
    moments = random.Random(seed)
    asyncio.run(FilesystemKVS(folder).multiset({"i": 0, LONG: 0}))
    reached = 0
    for _ in range(12):
        reader, writer = os.pipe()

        async def write(start: int = reached, pipe: int = writer) -> None:
            store = FilesystemKVS(folder)
            for at in range(start + 1, 10**6):
                data = str(at).encode()
                assert await store.commit([Change("i", Guard.ANY, {"i": data, LONG: data})]) == [
                    None
                ]
                os.write(pipe, b"%d\n" % at)

        pid = run_in_child(write())
        os.close(writer)
        time.sleep(moments.uniform(0.02, 0.06))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(reader, "rb") as acknowledged:
            numbers = acknowledged.read().split()
        found = everything(folder)
        assert found["i"] == found[LONG], f"seed {seed}"
        reached = int(str(found["i"]))
        if numbers:
            assert int(numbers[-1]) <= reached <= int(numbers[-1]) + 1, f"seed {seed}"
    assert reached > 0


def test_temporary_files_of_a_crash_are_removed_after_an_hour(folder: Path) -> None:
    FilesystemKVS(folder)
    young, old = (folder / OWN_FOLDER / "tmp" / name for name in ("young", "old"))
    young.write_bytes(b"1")
    old.write_bytes(b"1")
    an_hour_ago = time.time() - 3_700
    os.utime(old, (an_hour_ago, an_hour_ago))
    FilesystemKVS(folder)
    assert own_files(folder) == ["tmp/young"]


def test_damaged_journal_does_not_block_the_store(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FilesystemKVS(folder)
    (folder / OWN_FOLDER / "journal" / "0").write_bytes(b"")
    asyncio.run(store.set("key", 1))
    assert everything(folder) == {"key": 1}
    assert "Its change may be incomplete" in caplog.text


# -- other processes ------------------------------------------------------------------------


def test_updates_of_several_processes_are_all_counted(folder: Path) -> None:
    async def count() -> None:
        async with FilesystemKVS(folder, fsync=False) as store:
            for _ in range(60):
                await store.update("counter", lambda value: int(str(value or 0)) + 1)

    pids = [run_in_child(count()) for _ in range(3)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    assert everything(folder) == {"counter": 180}


def test_event_loop_is_not_blocked_while_a_file_is_locked(folder: Path) -> None:
    store = FilesystemKVS(folder)
    paths = [PurePosixPath("key.json"), PurePosixPath("other.json")]
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with AtomicFiles(folder).locked(paths):
            locked.set()
            release.wait(30)

    async def write() -> None:
        pair = Change("key", None, {"key": b"1", "other": b"1"})
        writing = asyncio.create_task(store.commit([pair]))
        turns = 0
        while turns < 50:
            await asyncio.sleep(0.001)
            turns += 1
        assert not writing.done()
        assert await store.multiget(["key", "other"]) == [None, None]  # reading does not wait
        release.set()
        assert await writing == [None]
        assert await store.multiget(["key", "other"]) == [1, 1]

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(30)
    try:
        asyncio.run(write())
    finally:
        release.set()
        holder.join()


def test_readers_never_see_half_a_file(folder: Path) -> None:
    store = FilesystemKVS(folder, fsync=False)
    stop = threading.Event()

    async def write() -> None:
        at = 0
        while not stop.is_set():
            await store.set("key", [at] * (1 + at % 2 * 20_000))
            at += 1

    async def read() -> None:
        seen = [len(await store["key"]) for _ in range(150)]
        assert set(seen) == {1, 20_001}

    asyncio.run(store.set("key", [0]))
    writer = threading.Thread(target=lambda: asyncio.run(write()))
    writer.start()
    try:
        asyncio.run(read())
    finally:
        stop.set()
        writer.join()
