"""What sessions cost the processor's caches: counted by simulation, and what a miss takes here.

    python -m benchmarks.caches [SESSIONS ...]

Callgrind counts the instructions of an event, and the cache lines that it misses in the first
level and past 1 MB (the second level of a current core) and 4 MB (what a virtual machine may
get of the third): the same each time, whatever else the machine does. What a miss takes on this
machine at this moment is timed by following pointers through so many bytes.

Needs valgrind and a C compiler. Counted are the processes of the sessions alone, with the start
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
from benchmarks.rows_sessions import ours
from benchmarks.setting import Setting
from benchmarks.work import counting, flat_state
from learning_observer.measure.timing import rare_collections

MEGABYTE: Final = 1024 * 1024
#: Past these the simulated caches end.
LAST_LEVELS: Final = (1 * MEGABYTE, 4 * MEGABYTE)
FOLLOWED: Final = (1, 2, 3, 4, 5, 6, 12, 64)
SECONDS: Final = 8.0  # of sessions, in valgrind, which takes some 150 times as long

#: Prints nanoseconds a step for each number of megabytes; each step waits for the one before.
CHASE: Final = r"""
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
static double chase(size_t bytes) {
    size_t count = bytes / 64, *order = malloc(count * sizeof *order), steps = 3000000;
    void **lines = aligned_alloc(4096, bytes), **at = lines;
    for (size_t i = 0; i < count; i++) order[i] = i;
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = rand() % i, other = order[i];
        order[i] = order[j], order[j] = other;
    }
    for (size_t i = 0; i < count; i++) lines[order[i] * 8] = &lines[order[(i + 1) % count] * 8];
    for (size_t i = 0; i < count; i++) at = *at;
    clock_t began = clock();
    for (size_t i = 0; i < steps; i++) at = *at;
    double took = (double)(clock() - began) / CLOCKS_PER_SEC / steps * 1e9;
    if (at == NULL) puts("");
    free(lines), free(order);
    return took;
}
int main(int count, char **sizes) {
    for (int i = 1; i < count; i++) printf("%s %.1f\n", sizes[i], chase(atoi(sizes[i]) << 20));
}
"""


async def run_sessions(sessions: int) -> None:
    """A run that is not counted, then one that is; prints its events."""
    async with Setting.opened(quick=False, seconds=SECONDS) as setting:
        reducer = counting(flat_state(STATE_BYTES))
        async with setting.store():
            contestant = await ours("ours", setting, reducer, sessions)
            for is_counted in (False, True):
                with rare_collections(collect_first=True):
                    if is_counted:
                        _count("on")
                    run = await contestant.run()
                    if is_counted:
                        _count("off")
            print(run.events)
            await contestant.check()


def _count(switch: str) -> None:
    control = ["callgrind_control", "-i", switch, str(os.getpid())]
    subprocess.run(control, check=True, stdout=subprocess.DEVNULL)


def counted(sessions: int, last_level: int, folder: Path) -> subprocess.Popen[str]:
    """The sessions in valgrind, with a last level of so many bytes."""
    words = [
        *("valgrind", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=yes"),
        *("--I1=32768,8,64", "--D1=32768,8,64", f"--LL={last_level},16,64"),
        f"--callgrind-out-file={_counts(sessions, last_level, folder)}",
        *(sys.executable, "-m", __spec__.name, "--run", str(sessions)),
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _counts(sessions: int, last_level: int, folder: Path) -> Path:
    return folder / f"{sessions}-{last_level}"


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


def report(sessions: int, folder: Path) -> None:
    """Count so many sessions, and print what an event comes to."""
    running = [counted(sessions, size, folder) for size in LAST_LEVELS]
    found = []
    for process, size in zip(running, LAST_LEVELS, strict=True):
        printed, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"valgrind ended with {process.returncode}")
        found.append(per_event(_counts(sessions, size, folder), int(printed)))
    first = found[0]
    past = ", ".join(
        f"{size // MEGABYTE} MB {counts['DLmr']:.0f} read and {counts['DLmw']:.0f} written"
        for size, counts in zip(LAST_LEVELS, found, strict=True)
    )
    print(
        f"{sessions:,} sessions, an event: {first['Ir']:,.0f} instructions; lines missed: "
        f"of code {first['I1mr']:,.0f} past 32 KB; of data past {past}",
        flush=True,
    )


def chase(folder: Path) -> None:
    """Print what a miss takes."""
    source, program = folder / "chase.c", folder / "chase"
    source.write_text(CHASE)
    subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
    sizes = [str(size) for size in FOLLOWED]
    printed = subprocess.run([str(program), *sizes], check=True, capture_output=True, text=True)
    steps = [line.split() for line in printed.stdout.splitlines()]
    print("a step among", ", ".join(f"{size} MB: {took} ns" for size, took in steps))


def main(arguments: list[str] | None = None) -> None:
    """Count for each number of sessions, then time what a miss takes."""
    parser = argparse.ArgumentParser("python -m benchmarks.caches", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sessions", nargs="*", type=int, help="how many at a time (64 and 1000)")
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)  # what runs within valgrind
    options = parser.parse_args(arguments)
    if options.run:
        asyncio.run(run_sessions(options.run))
        return
    missing = [name for name in ("valgrind", "callgrind_control", "cc") if not shutil.which(name)]
    if missing:
        parser.exit(
            2, f"not found: {', '.join(missing)}. On Debian: apt-get install valgrind gcc\n"
        )
    with tempfile.TemporaryDirectory() as folder:
        for sessions in options.sessions or (64, 1000):
            report(sessions, Path(folder))
        chase(Path(folder))


if __name__ == "__main__":
    main()
