"""Several processes share one folder of the filesystem store; some are killed while writing."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.tally import Tally
from tests.faults.workers import tell
from tests.kvs.children import run_in_child

from lo_kvs.kvs import Change, FilesystemKVS, KVSError, codec

LONG = "n" * 300
COUNTERS = ("counter", "other/counter")
#: One change sets both, so both always have the same number.
PAIR = ("pair", LONG + "pair")
OPTIONS = [(False, True), (True, False), (True, True)]
IDS = ["flat, fsync", "subdirs, no fsync", "subdirs, fsync"]


def one_more(value: Any) -> int:
    return int(value or 0) + 1


def with_one_more(item: str) -> Callable[[Any], list[Any]]:
    return lambda old: [*(old or []), item]


async def count_pair(store: FilesystemKVS) -> None:
    (data,) = await store.read([PAIR[0]])
    while True:
        new = codec.encode(one_more(data and codec.decode(data)))
        (outcome,) = await store.commit([Change(PAIR[0], data, dict.fromkeys(PAIR, new))])
        if outcome is None:
            return
        if isinstance(outcome, KVSError):
            raise outcome
        data = outcome.current


async def count_at_random(store: FilesystemKVS, draw: random.Random) -> str:
    """Increment a random counter; return its name."""
    key = draw.choice([*COUNTERS, PAIR[0]])
    if key == PAIR[0]:
        await count_pair(store)
    else:
        await store.update(key, one_more)
    return key


class Counting:
    """A process that counts until it is killed, and writes a letter to a pipe per change made."""

    def __init__(self, folder: Path, subdirs: bool, fsync: bool, seed: str) -> None:
        self.reader, writer = os.pipe()

        async def count() -> None:
            draw = random.Random(seed)
            async with FilesystemKVS(folder, subdirs=subdirs, fsync=fsync) as store:
                while True:
                    key = await count_at_random(store, draw)
                    os.write(writer, key[:1].encode())

        self.pid = run_in_child(count())
        os.close(writer)

    def kill(self) -> Counter[str]:
        """Kill it; return the changes that it reported as made."""
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        with os.fdopen(self.reader, "rb") as pipe:
            letters = pipe.read().decode()
        assert os.WIFSIGNALED(status), "it ended by itself"
        names = {key[:1]: key for key in (*COUNTERS, PAIR[0])}
        return Counter(names[letter] for letter in letters)


@pytest.mark.parametrize(("subdirs", "fsync"), OPTIONS, ids=IDS)
def test_writers_killed_while_others_write(
    subdirs: bool, fsync: bool, tmp_path: Path, seed: int, tally: Tally
) -> None:
    draw = random.Random(seed)
    folder = tmp_path / "store"
    asyncio.run(FilesystemKVS(folder, subdirs=subdirs).multiset(dict.fromkeys(COUNTERS, 0)))
    kills = 40
    names = (f"{seed} {at}" for at in itertools.count())
    writers = [Counting(folder, subdirs, fsync, next(names)) for _ in range(3)]
    acknowledged: Counter[str] = Counter()
    try:
        for _ in range(kills - len(writers)):
            time.sleep(draw.uniform(0.01, 0.05))  # the moment is what is tested
            victim = writers.pop(draw.randrange(len(writers)))
            acknowledged += victim.kill()
            seen = asyncio.run(read_all(folder, subdirs))  # torn values would not be JSON
            assert all(seen[key] >= acknowledged[key] for key in acknowledged), f"seed {seed}"
            writers.append(Counting(folder, subdirs, fsync, next(names)))
    finally:
        while writers:
            acknowledged += writers.pop().kill()
    stored = asyncio.run(read_all(folder, subdirs))
    assert stored[PAIR[0]] == stored[PAIR[1]], f"seed {seed}"
    extra = {key: stored[key] - acknowledged[key] for key in (*COUNTERS, PAIR[0])}
    tell(f"{kills} kills: acknowledged {dict(acknowledged)}, beyond that {extra}")
    assert all(count >= 0 for count in extra.values()), f"seed {seed}: {extra}"
    assert sum(extra.values()) <= kills, f"seed {seed}: {extra}"
    assert all(acknowledged[key] > 10 for key in extra)
    # No lock or journal is left over.
    asyncio.run(count_pair(FilesystemKVS(folder, subdirs=subdirs)))
    again = asyncio.run(read_all(folder, subdirs))
    assert again[PAIR[1]] == stored[PAIR[0]] + 1
    options = f"subdirs {'on' if subdirs else 'off'}, fsync {'on' if fsync else 'off'}"
    tally(
        "T21",
        kills,
        f"kills, {options}: {acknowledged.total():,} changes kept, {sum(extra.values())} more made",
    )


async def read_all(folder: Path, subdirs: bool) -> dict[str, int]:
    async with FilesystemKVS(folder, subdirs=subdirs, fsync=False) as store:
        keys = [*COUNTERS, *PAIR]
        return dict(zip(keys, await store.multiget(keys, 0), strict=True))


@pytest.mark.parametrize(("subdirs", "fsync"), OPTIONS, ids=IDS)
def test_two_processes_count_exactly(
    subdirs: bool, fsync: bool, tmp_path: Path, seed: int, tally: Tally
) -> None:
    folder = tmp_path / "store"
    rounds, tasks = 40, 4

    async def count(name: int) -> None:
        async with FilesystemKVS(folder, subdirs=subdirs, fsync=fsync) as store:

            async def work(task: int) -> None:
                draw = random.Random(f"{seed} {name} {task}")
                for _ in range(rounds):
                    key = await count_at_random(store, draw)
                    await store.update(f"own/{name}", with_one_more(key))

            await asyncio.gather(*(work(task) for task in range(tasks)))

    pids = [run_in_child(count(name)) for name in range(2)]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0]
    stored = asyncio.run(read_all(folder, subdirs))
    counted: Counter[str] = Counter()
    for name in range(2):
        own = asyncio.run(FilesystemKVS(folder, subdirs=subdirs).get(f"own/{name}"))
        assert len(own) == rounds * tasks
        counted.update(own)
    assert stored == {**counted, PAIR[1]: counted[PAIR[0]]}
    tally("T21", 2 * rounds * tasks, "two processes: the sums exact")
