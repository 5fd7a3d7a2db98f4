"""The filesystem store on disks that fail and fill up: every call fails, once or for good.

tests/kvs/filesystem/test_filesystem.py kills and fails one change at each step of the interpreter.
Here reads, writes, locks and closes fail as well, also during reading and recovery, and some
limits are those of the kernel.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import resource
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.faults.bad_disk import BadDisk
from tests.faults.tally import Tally
from tests.faults.workers import tell

from lo_kvs.kvs import (
    Change,
    FilesystemKVS,
    Guard,
    KVSError,
    OutcomeUnknown,
    Unavailable,
    codec,
)
from lo_kvs.kvs.filesystem.atomic_files import OWN_FOLDER

LONG = "n" * 300
IN_MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where available, because the speed of the disk does not matter here."""
    if not os.access(IN_MEMORY, os.W_OK | os.X_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="lokvs-", dir=IN_MEMORY) as name:
        yield Path(name)


# -- calls that fail ---------------------------------------------------------------------

OLD: dict[str, Any] = {"a": 1, "b": 1, "deep/er/key": 1, LONG: 1}
CHANGES = {
    "one key": Change("a", b"1", {"a": b"2"}),
    "a new folder": Change("new/er/key", None, {"new/er/key": b"2"}),
    "remove": Change("a", b"1", {"a": None}),
    "several": Change("a", b"1", {"a": b"2", "deep/er/key": None, "x/y": b"2", LONG: b"2"}),
    "a long one goes": Change(LONG, Guard.ANY, {LONG: None, "b": b"2"}),
}
DISKS = {
    "full once": (errno.ENOSPC, False),
    "bad once": (errno.EIO, False),
    "permanently bad": (errno.EIO, True),
}


def after(change: Change) -> dict[str, Any]:
    values = {**OLD, **{key: data and codec.decode(data) for key, data in change.puts.items()}}
    return {key: value for key, value in values.items() if value is not None}


@dataclass
class Site:
    """A store's folder, created once and copied for each attempt."""

    place: Path
    subdirs: bool
    fsync: bool

    def __post_init__(self) -> None:
        self.attempts = itertools.count()
        self.made = self.place / "made"
        with asyncio.Runner() as runner:
            runner.run(self.open(self.made).multiset(OLD))

    def open(self, folder: Path) -> FilesystemKVS:
        return FilesystemKVS(folder, subdirs=self.subdirs, fsync=self.fsync)

    def copy(self) -> Path:
        folder = self.place / str(next(self.attempts))
        shutil.copytree(self.made, folder)
        return folder


def leftovers(folder: Path, *parts: str) -> list[str]:
    """The temporary files and journals, or the content of one of these folders."""
    own = folder / OWN_FOLDER
    return [path.name for part in parts or ("tmp", "journal") for path in (own / part).iterdir()]


@pytest.mark.parametrize("fsync", [True, False])
@pytest.mark.parametrize("subdirs", [True, False])
def test_change_is_atomic_whichever_call_fails(
    subdirs: bool, fsync: bool, place: Path, tally: Tally
) -> None:
    site = Site(place, subdirs, fsync)
    outcomes: Counter[str] = Counter()
    with asyncio.Runner() as runner:
        for (disk, (error, for_good)), (name, change) in itertools.product(
            DISKS.items(), CHANGES.items()
        ):
            for at in itertools.count(1):
                folder = site.copy()
                store = site.open(folder)
                with BadDisk(str(folder), at=at, error=error, for_good=for_good) as bad:
                    (outcome,) = runner.run(store.commit([change]))
                where = f"{name}, {disk}, call {at}: {bad.calls[:at][-1:]}, {outcome!r}"
                # The disk works again: the content matches the reported outcome.
                seen = runner.run(store.dump())
                assert runner.run(site.open(folder).dump()) == seen, where
                match outcome:
                    case None:
                        assert seen == after(change), where
                    case OutcomeUnknown():
                        assert seen in (OLD, after(change)), where
                    case Unavailable():
                        assert seen == OLD, where
                    case _:
                        raise AssertionError(where)
                if not for_good:
                    assert leftovers(folder) == [], where
                later = {"a": 3, LONG: 3, "x/y": 3}
                runner.run(store.multiset(later))
                assert runner.run(store.dump()) == {**seen, **later}, where
                shutil.rmtree(folder)
                outcomes[type(outcome).__name__] += 1
                if not bad.reached:
                    assert outcome is None
                    assert at > 5
                    break
    tell(f"{dict(outcomes)}")
    assert outcomes["Unavailable"] > 100
    assert outcomes["OutcomeUnknown"] > 10
    options = f"subdirs {'on' if subdirs else 'off'}, fsync {'on' if fsync else 'off'}"
    tally("T21", outcomes.total(), f"{options}: full or bad disk: old or new, as reported")


def test_recovery_completes_whichever_call_fails(place: Path, tally: Tally) -> None:
    """A change interrupted after its journal was written is completed by a later opening."""
    site = Site(place, subdirs=True, fsync=True)
    change = CHANGES["several"]
    touches: list[Callable[[FilesystemKVS], Any]] = [
        lambda store: store.get("x/y"),
        lambda store: store.keys(),
        lambda store: store.set("b", 1),
    ]
    tried = 0
    with asyncio.Runner() as runner:
        for stop in itertools.count(1):
            begun = site.copy()
            store = site.open(begun)
            with BadDisk(str(begun), at=stop, error=errno.EIO, for_good=True) as bad:
                runner.run(store.commit([change]))
            if not bad.reached:
                break
            moments = range(1, 12) if leftovers(begun, "journal") else ()
            for touch, at in itertools.product(touches, moments):
                folder = place / f"of {stop}"
                shutil.copytree(begun, folder)
                store = site.open(folder)
                with BadDisk(str(folder), at=at, error=errno.EIO), suppress(Unavailable):
                    runner.run(touch(store))
                assert runner.run(store.dump()) == after(change), f"stopped at {stop}, then {at}"
                assert leftovers(folder, "journal") == []
                shutil.rmtree(folder)
                tried += 1
    assert tried > 50
    tally("T21", tried, "recovery, failing itself: the change was made in the end")


READINGS: dict[str, tuple[Callable[[FilesystemKVS], Any], Any]] = {
    "get": (lambda store: store.multiget(list(OLD)), list(OLD.values())),
    "dump": (lambda store: store.dump(), OLD),
}


@pytest.mark.parametrize("for_good", [True, False])
def test_reading_is_correct_whichever_call_fails(place: Path, for_good: bool, tally: Tally) -> None:
    """Correct values or an error; a key is never reported as absent."""
    site = Site(place, subdirs=True, fsync=True)
    folder = site.copy()
    tried = 0
    with asyncio.Runner() as runner:
        for name, (reading, expected) in READINGS.items():
            for at in itertools.count(1):
                store = site.open(folder)
                with BadDisk(str(folder), at=at, error=errno.EIO, for_good=for_good) as bad:
                    try:
                        found = runner.run(reading(store))
                    except Unavailable:
                        assert bad.reached
                    else:
                        assert found == expected, f"{name}, call {at}: {bad.calls[-1]}"
                tried += 1
                if not bad.reached:
                    break
        for at in itertools.count(1):
            with BadDisk(str(folder), at=at, error=errno.EIO, for_good=for_good) as bad:
                try:
                    site.open(folder)
                except KVSError:
                    assert bad.reached
            tried += 1
            if not bad.reached:
                break
        assert runner.run(site.open(folder).dump()) == OLD
    tally("T21", tried, f"reading and opening, bad {'permanently' if for_good else 'once'}")


# -- limits of the kernel --------------------------------------------------------------------


def in_child(work: Callable[[asyncio.Runner], None]) -> None:
    """Run `work` in a child process, so that its limits end with it."""

    async def nothing() -> None:
        pass

    def run() -> None:
        with asyncio.Runner() as runner:
            runner.run(nothing())  # opens the loop's own files now
            work(runner)

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
            code = 0
        except BaseException as error:  # noqa: BLE001 - the child ends here in any case
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_file_size_limit_of_the_kernel(tmp_path: Path, tally: Tally) -> None:
    """The kernel accepts half of the bytes and refuses the rest."""
    limit = 64 * 1024
    folder = tmp_path / "store"

    def write(runner: asyncio.Runner) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        store = FilesystemKVS(folder)
        runner.run(store.multiset({"a": 1, "b": 1}))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        large = codec.encode("x" * limit)
        for puts in ({"a": large}, {"b": b"2", "a": large}, {"a": large, LONG: b"2"}):
            (outcome,) = runner.run(store.commit([Change("a", b"1", puts)]))
            assert isinstance(outcome, Unavailable), outcome
            assert "File too large" in str(outcome)
            assert runner.run(store.dump()) == {"a": 1, "b": 1}
            assert leftovers(folder) == []
        # In the same call, a value that fits is still written.
        outcomes = runner.run(
            store.commit([Change("a", b"1", {"a": large}), Change("b", b"1", {"b": b"2"})])
        )
        assert isinstance(outcomes[0], Unavailable)
        assert outcomes[1] is None
        assert runner.run(store.dump()) == {"a": 1, "b": 2}

    in_child(write)
    tally("T21", 4, "file too large for the kernel: old, and the error says so")


def test_process_out_of_file_descriptors(tmp_path: Path, tally: Tally) -> None:
    folder = tmp_path / "store"
    spares = range(8)

    def write(runner: asyncio.Runner) -> None:
        store = FilesystemKVS(folder)
        runner.run(store.multiset({"a": 0, LONG: 0}))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        outcomes: Counter[str] = Counter()
        for spare in spares:
            stood = runner.run(store.get("a"))
            used = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208
            free = (number for number in itertools.count() if number not in used)
            (limit,) = itertools.islice(free, spare, spare + 1)
            puts = {key: codec.encode(spare + 1) for key in ("a", LONG)}
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
                (outcome,) = runner.run(store.commit([Change("a", codec.encode(stood), puts)]))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            outcomes[type(outcome).__name__] += 1
            found = runner.run(store.multiget(["a", LONG]))
            assert found[0] == found[1]
            assert found[0] == (spare + 1 if outcome is None else stood), (spare, outcome)
            assert leftovers(folder) == []
        assert outcomes["Unavailable"] >= 3, outcomes
        assert outcomes["NoneType"] >= 2, outcomes

    in_child(write)
    tally("T21", len(spares), "no file can be opened: old or new, as reported")


# -- files lost by other programs, or by a power failure without fsync ------------------------


@pytest.mark.parametrize("gone", ["temporary file", "folder"])
def test_journal_that_cannot_be_executed_completely(
    gone: str, place: Path, caplog: pytest.LogCaptureFixture, tally: Tally
) -> None:
    """It does not block the store: the rest of the change is made, and the loss is logged."""
    site = Site(place, subdirs=True, fsync=True)
    change = Change("a", b"1", {"a": b"2", "x/y": b"2", "b": b"2"})
    tried = 0
    with asyncio.Runner() as runner:
        for stop in itertools.count(1):
            folder = site.copy()
            store = site.open(folder)
            with BadDisk(str(folder), at=stop, error=errno.EIO, for_good=True) as bad:
                runner.run(store.commit([change]))
            if not bad.reached:
                break
            if (folder / "_x" / "y.json").exists() or not leftovers(folder, "journal"):
                continue
            tried += 1
            caplog.clear()
            if gone == "folder":
                (folder / "_x").rmdir()
                assert runner.run(store.dump()) == after(change)
                continue
            (journal,) = (folder / OWN_FOLDER / "journal").iterdir()
            listed: Any = codec.decode(journal.read_bytes())
            lost = {path: name for name, path in listed["renames"]}
            (folder / OWN_FOLDER / "tmp" / lost["_x/y.json"]).unlink()
            if tried % 2:
                (folder / "_x").rmdir()
            left = {key: value for key, value in after(change).items() if key != "x/y"}
            assert runner.run(store.dump()) == left
            assert "x/y" in caplog.text
            runner.run(store.set("x/y", 3))
            assert runner.run(site.open(folder).dump()) == {**left, "x/y": 3}
    assert tried > 1
    tally("T21", tried, f"a journal whose {gone} is gone: logged, and nothing is blocked")
