"""A program that counts, for tests in which it, its connection or its server is disturbed.

    python -m tests.faults.worker MODE URL [name=value ...]

URL can be the nodes of a cluster, with commas between them.

It says "ready", waits for a line, works, and prints what it saw acknowledged, as JSON; the mode
`acknowledge` prints a line for each event instead.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from lo_kvs.kvs import KVS, OutcomeUnknown, PersistentRedisKVS, Store
from lo_kvs.kvs.backend import Submit
from lo_kvs.kvs.changes import RESERVED_PREFIX, Change, Guard, Outcome
from lo_kvs.kvs.redis.cluster.requests import Request
from lo_kvs.kvs.redis.cluster.routing import RequestRouter
from lo_kvs.kvs.redis.cluster.slot_writer import SlotWriter
from lo_kvs.kvs.redis.cluster.slots import Address
from lo_kvs.kvs.redis.protocol import commit_script, commits
from lo_kvs.kvs.redis.protocol.commit_script import Call
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, Rounds
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.engine.engine import Engine
from lo_kvs.stream_analytics.helpers import KeyStateType, student_event_reducer
from lo_kvs.stream_analytics.limits import Limits

STUDENTS = ("s1", "s2")
COUNTERS = ("counter 0", "counter 1")
RECORD = RESERVED_PREFIX.encode() + b"writer:[0-9a-f]{32}"


@student_event_reducer(
    null_state={"count": 0}, module_override="tests", qualname_override="fault_count"
)
async def fault_count(event: Any, state: Any) -> tuple[Any, Any]:
    state["count"] += 1
    return state, state["count"]


def key_of(student: str, kind: KeyStateType = KeyStateType.INTERNAL) -> str:
    """The key of a student's state."""
    keyed: Any = fault_count.__dict__["_kvs_keyed"]
    keys = keyed.keys(metadata_of(student), {})
    return str(keys.internal if kind is KeyStateType.INTERNAL else keys.external)


def metadata_of(student: str) -> dict[str, Any]:
    return {"auth": {"safe_user_id": student}}


def one_more(value: Any) -> int:
    return int(value or 0) + 1


def other_record() -> bytes:
    """The name of a record that no call has left."""
    return f"{RESERVED_PREFIX}writer:{uuid.uuid4().hex}".encode()


def without_record(call: Call) -> Call:
    """The call, looking for another record."""
    command = re.sub(RECORD, other_record(), call.packed.command, count=1)
    return call._replace(packed=call.packed._replace(command=command))


def forget_records() -> None:
    """Look for the record of a call where none can be, at each attempt to send it."""
    rounds = commit_script.Call.rounds

    def rounds_without_record(call: commit_script.Call) -> Rounds[Outcomes]:
        return rounds(without_record(call))

    commit_script.Call.rounds = rounds_without_record  # type: ignore[method-assign,assignment]

    transaction = Transaction.rounds

    def transaction_without_record(call: Transaction) -> Rounds[Outcomes]:
        record = re.sub(RECORD, other_record(), call._writer.record)
        call._writer = call._writer._replace(record=record)
        return transaction(call)

    kind: Any = Transaction
    kind.rounds = transaction_without_record

    packed = SlotWriter.packed

    def packed_without_record(self: SlotWriter, *, whole: bool) -> bytes | None:
        if isinstance(self._call, Call):
            self._call = without_record(self._call)
        return packed(self, whole=whole)

    SlotWriter.packed = packed_without_record  # type: ignore[method-assign]


def forget_redirections() -> None:
    """Take ASK for "not now": wait until the slot has moved."""

    def wait(self: RequestRouter, request: Request, to: Address, error: Exception) -> None:
        self.not_now(request, error)

    RequestRouter.asked = wait  # type: ignore[method-assign,assignment]


def send_no_script() -> None:
    """Send EVALSHA alone, as if a server never forgot its scripts."""
    commit_script.Call.by_text = commit_script.Call.by_digest  # type: ignore[method-assign]


def forget_guards() -> None:
    """Let the commits of events write whatever stands in the store meanwhile."""
    kind: Any = PersistentRedisKVS
    way = kind.submitter_for

    def way_without_guard(store: PersistentRedisKVS, guard: str) -> Submit:
        submit = way(store, guard)

        def submit_without_guard(
            change: Change, done: Callable[[Outcome], object], deadline: float | None = None
        ) -> None:
            submit(change._replace(expected=Guard.ANY), done, deadline)

        return submit_without_guard

    kind.submitter_for = way_without_guard


def commit_by_transactions() -> None:
    """Take every change for a large one."""
    commits.LARGE_BYTES = 0  # type: ignore[misc]


#: What an option `<name>=off` takes away, so that a test can show that it would see it.
PROTECTIONS: Final = {
    "records": forget_records,
    "fallback": send_no_script,
    "guards": forget_guards,
    "asking": forget_redirections,
    "scripts": commit_by_transactions,
}


async def count_until_told(store: Store, *, alone: bool = False, mark: str = "") -> dict[str, Any]:
    """Events of two students and updates of two keys, one after another in each of eight tasks.

    `alone` leaves one task, so that no call waits for another; `mark` stands behind the names of
    the students and keys, so that no other process writes to them.
    """
    students, counters = ([name + mark for name in names] for names in (STUDENTS, COUNTERS))
    acknowledged: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    slowest = 0.0
    clock = asyncio.get_running_loop().time
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)

    async def count(key: str, one: Callable[[], Awaitable[Any]]) -> None:
        nonlocal slowest
        while not stop.is_set():
            start = clock()
            try:
                await one()
            except Exception as error:  # noqa: BLE001 - the test shows each of them
                errors[repr(error)] += 1
                unknown[key] += isinstance(error, OutcomeUnknown)
            else:
                acknowledged[key] += 1
            slowest = max(slowest, clock() - start)

    async def send(student: str) -> None:
        process = await fault_count(metadata_of(student))
        await count(key_of(student), lambda: process("event", {}))

    async def update(key: str) -> None:
        await count(key, lambda: store.update(key, one_more))

    if alone:
        await update(counters[0])
    else:
        tasks = [send(student) for student in students] + [update(key) for key in counters]
        tasks += [send(student) for student in students] + [update(key) for key in counters]
        await asyncio.gather(*tasks)
    return {
        "acknowledged": acknowledged,
        "errors": errors,
        "unknown": unknown,  # how many events of each key may be in it or not
        "slowest": slowest,  # seconds from an event to its answer
    }


async def acknowledge(store: Store, student: str) -> None:
    """One event at a time, and a line for each that is counted, until somebody kills it."""
    process = await fault_count(metadata_of(student))
    while True:
        await process("event", {})
        os.write(1, b"counted\n")  # one system call: a kill finds the line written, or not begun


async def run_sessions(first: int, sessions: int, events: int, keys: int) -> dict[str, Any]:
    """Sessions side by side, each with its events one after another."""
    acknowledged: Counter[str] = Counter()

    async def session(number: int) -> None:
        student = f"student {number % keys}"
        process = await fault_count(metadata_of(student))
        for _ in range(events):
            await process("event", {})
        acknowledged[student] += events

    await asyncio.gather(*(session(number) for number in range(first, first + sessions)))
    return {"acknowledged": acknowledged, "errors": {}}


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def visit_states(store: Store, states: int, cache_bytes: int) -> dict[str, Any]:
    """One event for each of many students; the resident memory after each twentieth of them."""
    engine = Engine(store, Limits(cache_bytes=cache_bytes))
    keyed: Any = fault_count.__dict__["_kvs_keyed"]
    resident: list[int] = []
    group = 250
    for start in range(0, states, group):
        students = [f"student {number}" for number in range(start, start + group)]
        answers = [
            engine.process(keyed.reducer, keyed.keys(metadata_of(student), {}), "event")
            for student in students
        ]
        shown = await asyncio.gather(*answers)
        if shown != [1] * group:
            raise RuntimeError(f"a state that nobody had touched counted more than one: {shown}")
        if (start + group) % (states // 20) == 0:
            resident.append(resident_bytes())
    return {"resident": resident}


async def work(mode: str, store: Store, options: dict[str, str]) -> dict[str, Any]:
    numbers = {name: int(value) for name, value in options.items() if value.isdigit()}
    async with store:
        match mode:
            case "count":
                mark = options.get("mark", "")
                return await count_until_told(store, alone="alone" in options, mark=mark)
            case "acknowledge":
                await acknowledge(store, options["student"])
            case "sessions":
                return await run_sessions(
                    numbers["first"], numbers["sessions"], numbers["events"], numbers["keys"]
                )
            case "states":
                return await visit_states(store, numbers["states"], numbers["cache_bytes"])
        raise ValueError(f"unknown mode {mode!r}")


def main(mode: str, url: str, *words: str) -> None:
    options = dict(word.split("=", 1) for word in words)
    for protection, take_away in PROTECTIONS.items():
        if options.get(protection) == "off":
            take_away()
    timeout = float(options.get("timeout", "5"))
    # Far more than any run takes: so an unknown outcome is a defect, not a passed deadline.
    retry_for = float(options.get("retry_for", "120"))
    where = RedisSettings(timeout=timeout, retry_for=retry_for)
    if "://" in url:
        where = replace(where, url=url)
    else:
        where = replace(where, cluster=True, nodes=tuple(url.split(",")))
    store = PersistentRedisKVS(connection=where)
    KVS.add_item("default", store)
    os.write(1, b"ready\n")
    os.read(0, 3)  # "go" and the end of its line, and nothing of what follows
    sys.stdout.write(json.dumps(asyncio.run(work(mode, store, options))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
