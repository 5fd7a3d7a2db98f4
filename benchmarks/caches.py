"""Counts the cache misses of events by simulation, and times a cache miss on this machine.

    python -m benchmarks.caches [WORK ...]

A work is a number of sessions, as in P2; `batches`, as in P3; or `ceiling`, the same events
without a store.

Callgrind counts the instructions of an event, and the cache lines that it misses in the first
level and past 1 MB (the second level of a current core) and 4 MB (what a virtual machine may
get of the third): the same each time, whatever else the machine does. What a miss takes on this
machine at this moment is timed by following pointers through so many bytes.

Needs valgrind and a C compiler. Counted are the processes of the clients alone, with the start
of each session, which has some ten events.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.loop_process import STATE_BYTES
from benchmarks.rows_replay import (
    CEILING,
    batches,
    events_of_all,
    replayed_students,
    without_store,
)
from benchmarks.rows_sessions import OURS, ours
from benchmarks.setting import Setting
from benchmarks.work import counting, flat_state, plain
from lo_kvs.ingest.event_log import BATCH_LINES_MAX
from lo_kvs.measure.timing import Contestant, rare_collections

MEGABYTE: Final = 1024 * 1024
#: Past these the simulated caches end.
LAST_LEVELS: Final = (1 * MEGABYTE, 4 * MEGABYTE)
WORKS: Final = ("64", "1000", "batches", "ceiling")
FOLLOWED: Final = (1, 2, 3, 4, 5, 6, 12, 64)
SECONDS: Final = 8.0  # of sessions, in valgrind, which takes some 150 times as long
CHASE: Final = Path(__file__).with_name("chase.c")


async def run_work(work: str) -> None:
    """A run that is not counted, then one that is; prints its events."""
    async with Setting.opened(quick=False, seconds=SECONDS) as setting, setting.store():
        contestant = await _contestant(work, setting)
        for is_counted in (False, True):
            with rare_collections(collect_first=True):
                if is_counted:
                    _count("on")
                run = await contestant.run()
                if is_counted:
                    _count("off")
        print(run.events)
        await contestant.check()


async def _contestant(work: str, setting: Setting) -> Contestant:
    null = flat_state(STATE_BYTES)
    reducer = counting(null)
    if work.isdigit():
        return await ours(OURS, setting, reducer, int(work))
    students = replayed_students(setting)
    events = events_of_all(students, setting)
    if work == "batches":
        return batches(OURS, setting, reducer, students, events, size=BATCH_LINES_MAX)
    return without_store(CEILING, plain(reducer), null, events, encoded=True)


def _count(switch: str) -> None:
    control = ["callgrind_control", "-i", switch, str(os.getpid())]
    subprocess.run(control, check=True, stdout=subprocess.DEVNULL)


def counted(work: str, last_level: int, folder: Path) -> subprocess.Popen[str]:
    """The work in valgrind, with a last level of so many bytes."""
    words = [
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes"),
        *("--I1=32768,8,64", "--D1=32768,8,64", f"--LL={last_level},16,64"),
        f"--callgrind-out-file={_counts(work, last_level, folder)}",
        *(sys.executable, "-m", __spec__.name, "--run", work),
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _counts(work: str, last_level: int, folder: Path) -> Path:
    return folder / f"{work}-{last_level}"


def per_event(counts: Path, events: int) -> dict[str, float]:
    """What callgrind counted, by its names, for an event."""
    text = counts.read_text()
    names, figures = (
        re.search(rf"^{line}: (.+)$", text, re.MULTILINE) for line in ("events", "totals")
    )
    if names is None or figures is None:
        raise RuntimeError(f"callgrind left no counts for {counts.name}")
    pairs = zip(names[1].split(), figures[1].split(), strict=True)
    return {name: int(figure) / events for name, figure in pairs}


def report(work: str, folder: Path) -> None:
    """Count the work, and print what an event comes to."""
    running = [counted(work, size, folder) for size in LAST_LEVELS]
    found = []
    for process, size in zip(running, LAST_LEVELS, strict=True):
        printed, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"valgrind ended with {process.returncode}")
        found.append(per_event(_counts(work, size, folder), int(printed)))
    first = found[0]
    name = f"{int(work):,} sessions" if work.isdigit() else work
    past = ", ".join(
        f"{size // MEGABYTE} MB {counts['DLmr']:.0f} read and {counts['DLmw']:.0f} written"
        for size, counts in zip(LAST_LEVELS, found, strict=True)
    )
    print(
        f"{name}, an event: {first['Ir']:,.0f} instructions; lines missed: "
        f"of code {first['I1mr']:,.0f} past 32 KB; of data past {past}",
        flush=True,
    )


def chase(folder: Path) -> None:
    """Print what a miss takes."""
    program = folder / "chase"
    subprocess.run(["cc", "-O2", "-o", str(program), str(CHASE)], check=True)
    sizes = [str(size) for size in FOLLOWED]
    printed = subprocess.run([str(program), *sizes], check=True, capture_output=True, text=True)
    steps = [line.split() for line in printed.stdout.splitlines()]
    print("a step among", ", ".join(f"{size} MB: {took} ns" for size, took in steps))


def _work(name: str) -> str:
    if name not in WORKS and not (name.isdecimal() and int(name)):
        raise argparse.ArgumentTypeError(
            f"no number of sessions, no `batches` or `ceiling`: {name}"
        )
    return name


def main(arguments: list[str] | None = None) -> None:
    """Count for each number of sessions, then time what a miss takes."""
    parser = argparse.ArgumentParser("python -m benchmarks.caches", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "work", nargs="*", type=_work, help=f"what is counted ({' '.join(WORKS)})", default=WORKS
    )
    parser.add_argument("--run", help=argparse.SUPPRESS)  # what runs within valgrind
    options = parser.parse_args(arguments)
    if options.run:
        asyncio.run(run_work(options.run))
        return
    missing = [name for name in ("valgrind", "callgrind_control", "cc") if not shutil.which(name)]
    if missing:
        parser.exit(
            2, f"not found: {', '.join(missing)}. On Debian: apt-get install valgrind gcc\n"
        )
    with tempfile.TemporaryDirectory() as folder:
        for work in options.work:
            report(work, Path(folder))
        chase(Path(folder))


if __name__ == "__main__":
    main()
