"""Runs the read-set-set loop in its own process, as in production.

The memory that a thousand connections leave in a process would slow down the next round there,
and so would ours.

    python -m benchmarks.loop_process URL SESSIONS SECONDS

For each line of its input it runs a round and prints the result as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from redis.asyncio import BlockingConnectionPool, Redis

from benchmarks.baselines import ReadSetSet
from benchmarks.setting import Setting
from benchmarks.work import counting, event_of, flat_state, keys_of, plain
from lo_kvs.measure.timing import Contestant, Run, Step, drive, rare_collections

LOOP: Final = "read-set-set loop"
STATE_BYTES: Final = 300
ROOT: Final = Path(__file__).parent.parent


@contextlib.asynccontextmanager
async def loop_process(setting: Setting, sessions: int) -> AsyncIterator[Contestant]:
    """The loop with so many sessions, each with a state of its own, as a contestant."""
    words = ("-m", "benchmarks.loop_process", setting.url(), str(sessions), str(setting.seconds))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=pipe, stdout=pipe, cwd=ROOT
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the loop's process has no pipes")
    asked, replies = process.stdin, process.stdout

    async def run() -> Run:
        asked.write(b"\n")
        events, seconds, latencies_us = json.loads(await replies.readline())
        return Run(events, seconds, tuple(latencies_us))

    async def check(sent: int) -> None:
        reducer = counting(flat_state(STATE_BYTES))
        keys = [keys_of(reducer, student).internal for student in _students(sessions)]
        await setting.check_count(LOOP, keys, sent)

    try:
        yield Contestant(LOOP, run, check)
    finally:
        asked.close()
        await process.wait()


async def main(url: str, sessions: int, seconds: float) -> None:
    """Run a round for each line of the input."""
    # redis-py's own pool has 100 connections and raises where there are more sessions.
    waiting = BlockingConnectionPool.from_url(url, timeout=None)
    null = flat_state(STATE_BYTES)
    reducer = counting(null)
    async with Redis.from_url(url) if sessions <= 100 else Redis.from_pool(waiting) as client:
        loop = ReadSetSet(client, plain(reducer), null)
        steps: list[Step] = [
            functools.partial(loop.process, keys_of(reducer, student), event_of(student))
            for student in _students(sessions)
        ]
        for _ in sys.stdin:
            with rare_collections(collect_first=True):
                run = await drive(steps, seconds)
            print(json.dumps(run), flush=True)


def _students(sessions: int) -> list[str]:
    return [f"{LOOP}-{number}" for number in range(sessions)]


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
