"""A program that sends events, for tests with several processes.

    python -m tests.stream_analytics.writer filesystem PATH | redis URL

It says "ready", waits for a line, sends, and prints the External states that it got.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from lo_kvs.kvs import KVS, FilesystemKVS, PersistentRedisKVS, Store
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.helpers import student_event_reducer

TASKS, EVENTS = 64, 1000  # enough for two processes to meet each other


@student_event_reducer(
    null_state={"count": 0}, module_override="tests", qualname_override="shared_count"
)
async def shared_count(event: Any, state: Any) -> tuple[Any, Any]:
    state["count"] += 1
    return state, state["count"]


async def send_all(store: Store, tasks: int = TASKS, events: int = EVENTS) -> list[int]:
    """Every External state that came back, in no order; `KVS()` must be `store`."""

    async def one_after_another() -> list[int]:
        process: Any = await shared_count({"auth": {"safe_user_id": "s1"}})
        return [await process("event", {}) for _ in range(events)]

    async with store:
        results = await asyncio.gather(*(one_after_another() for _ in range(tasks)))
    return [count for counts in results for count in counts]


def main(kind: str, place: str) -> None:
    store: Store
    if kind == "filesystem":
        store = FilesystemKVS(place, fsync=False)
    else:
        store = PersistentRedisKVS(connection=RedisSettings(url=place))
    KVS.add_item("default", store)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    json.dump(asyncio.run(send_all(store)), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
