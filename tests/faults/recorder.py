"""A program that works on a store at random and writes down what it did, saw, and when.

    python -m tests.faults.recorder KIND PLACE [name=value ...]

It says "ready", waits for a line, works, and prints its operations as JSON: a list for each key.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import astuple
from typing import Any

from tests.faults.history import ANYTHING, NOTHING, Operation, Value
from tests.faults.workers import ROOT, Worker

from lo_kvs.kvs import (
    Change,
    Conflict,
    FilesystemKVS,
    KVSError,
    OutcomeUnknown,
    PersistentRedisKVS,
    Store,
    Unavailable,
    codec,
)
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.engine.engine import Engine
from lo_kvs.stream_analytics.helpers import student_event_reducer

KEYS = ("first", "second")
STUDENT = "s1"


class Recorder(Worker):
    """A process of this program."""

    def __init__(self, kind: str, place: str, **options: object) -> None:
        words = [f"{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.recorder", kind, place, *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def history(self) -> dict[str, list[Operation]]:
        """What it did, by key, once it has done it all."""
        return {
            key: [Operation.read_from(words) for words in operations]
            for key, operations in self.report().items()
        }


def open_store(kind: str, place: str, options: dict[str, str]) -> Store:
    if kind == "filesystem":
        return FilesystemKVS(place, subdirs=True, fsync=False)
    where = RedisSettings(
        url=place,
        timeout=float(options.get("timeout", "5")),
        retry_for=float(options.get("retry_for", "60")),
    )
    return PersistentRedisKVS(prefix="h:", connection=where)


def text(data: bytes | None) -> Value:
    return None if data is None else str(codec.decode(data))


class Hand:
    """One task. Each value that it writes is new, and now and then it removes one."""

    def __init__(self, store: Store, name: str, draw: random.Random) -> None:
        self._store = store
        self._name = name
        self._random = draw
        self._written = 0
        self._seen: dict[str, bytes | None] = {}
        self.history: dict[str, list[Operation]] = {key: [] for key in KEYS}

    async def work(self, operations: int) -> None:
        for _ in range(operations):
            key = self._random.choice(KEYS)
            act = self._random.choice([self.get, self.get, self.set, self.update, self.swap])
            await act(key)
            if self._random.random() < 0.3:
                await asyncio.sleep(self._random.random() * 0.003)

    async def get(self, key: str) -> None:
        invoked = time.monotonic_ns()
        try:
            (data,) = await self._store.read([key])
        except Unavailable:  # it saw nothing
            return
        self._seen[key] = data
        self._record(key, text(data), NOTHING, invoked)

    async def set(self, key: str) -> None:
        value = self._new_value()
        invoked = time.monotonic_ns()
        try:
            await self._store.set(key, value)
        except OutcomeUnknown:
            self._record(key, ANYTHING, value, invoked, returned=False)
        except Unavailable:  # it did nothing
            return
        else:
            self._record(key, ANYTHING, value, invoked)

    async def update(self, key: str) -> None:
        value = self._new_value()
        found: list[Any] = []

        def change(old: Any) -> str:
            found.append(old)
            return value

        invoked = time.monotonic_ns()
        try:
            await self._store.update(key, change)
        except OutcomeUnknown:  # of the attempt that was made last
            self._record(key, found[-1], value, invoked, returned=False)
        except Unavailable:
            return
        else:
            self._record(key, found[-1], value, invoked)

    async def swap(self, key: str) -> None:
        """Compare-and-set, or -remove, with what this task saw there last, however long ago.

        Now and then both keys are set: an operation on each, of which the other one looks at
        nothing.
        """
        value = None if self._random.random() < 0.1 else self._new_value()
        data = None if value is None else codec.encode(value)
        expected = self._seen.get(key)
        others = [] if self._random.random() < 0.6 else [each for each in KEYS if each != key]
        change = Change(key, expected, dict.fromkeys([*others, key], data))
        invoked = time.monotonic_ns()
        (outcome,) = await self._store.commit([change])
        if isinstance(outcome, Conflict):
            self._seen[key] = outcome.current
            self._record(key, text(outcome.current), NOTHING, invoked)
        elif outcome is None or isinstance(outcome, OutcomeUnknown):
            self._record(key, text(expected), value, invoked, returned=outcome is None)
            for other in others:
                self._record(other, ANYTHING, value, invoked, returned=outcome is None)
        elif not isinstance(outcome, Unavailable):
            raise outcome

    def _new_value(self) -> str:
        self._written += 1
        return f"{self._name}.{self._written}"

    def _record(
        self, key: str, seen: Value, put: Value, invoked: int, *, returned: bool = True
    ) -> None:
        end = time.monotonic_ns() if returned else None
        self.history[key].append(Operation(seen, put, invoked, end))


@student_event_reducer(null_state=0, module_override="tests", qualname_override="recorded_count")
async def recorded_count(event: Any, state: Any) -> tuple[Any, Any]:
    """Shows its event's place in the order of all: 1 for the first one."""
    return state + 1, state + 1


async def count(store: Store, operations: int, draw: random.Random) -> list[Operation]:
    """Events on one state, through an engine that keeps it; each one is an update by one.

    Two engines share a store, as those of two event loops do: neither knows of the other.
    """
    keyed: Any = recorded_count.__dict__["_kvs_keyed"]
    keys = keyed.keys({"auth": {"safe_user_id": STUDENT}}, {})
    engine = Engine(store)
    done: list[Operation] = []
    for _ in range(operations):
        invoked = time.monotonic_ns()
        try:
            place = await engine.process(keyed.reducer, keys, "event")
        except KVSError as error:
            raise RuntimeError(f"an event was not counted: {error!r}") from error
        done.append(Operation(str(int(str(place)) - 1), str(place), invoked, time.monotonic_ns()))
        if draw.random() < 0.3:
            await asyncio.sleep(draw.random() * 0.003)
    return done


async def record(kind: str, place: str, options: dict[str, str]) -> dict[str, list[Operation]]:
    """The operations of several tasks, of which two share each store object, and its groups."""
    tasks, operations = int(options["tasks"]), int(options["operations"])
    names = [f"{options['name']}{at}" for at in range(tasks)]
    stores = [open_store(kind, place, options) for _ in range(0, tasks, 2)]
    using = [stores[at // 2] for at in range(tasks)]
    draws = [random.Random(f"{options['seed']} {name}") for name in names]
    try:
        if options["mode"] == "events":
            counting = map(count, using, [operations] * tasks, draws)
            return {STUDENT: list(itertools.chain(*await asyncio.gather(*counting)))}
        hands = list(map(Hand, using, names, draws))
        await asyncio.gather(*(hand.work(operations) for hand in hands))
        return {key: [each for hand in hands for each in hand.history[key]] for key in KEYS}
    finally:
        for store in stores:
            await store.aclose()


def main(kind: str, place: str, *words: str) -> None:
    options = dict(word.split("=", 1) for word in words)
    os.write(1, b"ready\n")
    os.read(0, 3)  # "go" and the end of its line
    history = asyncio.run(record(kind, place, options))
    plain = {key: [astuple(each) for each in done] for key, done in history.items()}
    sys.stdout.write(json.dumps(plain) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
