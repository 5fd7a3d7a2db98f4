"""A program that works on a store at random and writes down what it did, saw, and when.

    python -m tests.faults.recorder KIND PLACE [name=value ...]

It says "ready", waits for a line, works, and prints its operations as JSON: a list for each key.
"""

from __future__ import annotations

import asyncio
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

from learning_observer.kvs import (
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
from learning_observer.redis_connection import RedisSettings
from learning_observer.stream_analytics.engine import Engine
from learning_observer.stream_analytics.helpers import student_event_reducer

KEYS = ("first", "second")
STUDENT = "ann"


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
    """One task with a store of its own. Each value that it writes is new; it removes some, too."""

    def __init__(self, store: Store, name: str, seed: str) -> None:
        self._store = store
        self._name = name
        self._random = random.Random(seed)
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
        """Compare-and-set, or -remove, with what this task saw there last, however long ago."""
        value = None if self._random.random() < 0.1 else self._new_value()
        data = None if value is None else codec.encode(value)
        expected = self._seen.get(key)
        invoked = time.monotonic_ns()
        (outcome,) = await self._store.commit([Change(key, expected, {key: data})])
        if outcome is None:
            self._record(key, text(expected), value, invoked)
        elif isinstance(outcome, Conflict):
            self._seen[key] = outcome.current
            self._record(key, text(outcome.current), NOTHING, invoked)
        elif isinstance(outcome, OutcomeUnknown):
            self._record(key, text(expected), value, invoked, returned=False)
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


async def count(store: Store, operations: int, random_: random.Random) -> list[Operation]:
    """Events on one state, through an engine that keeps it; each one is an update by one."""
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
        if random_.random() < 0.3:
            await asyncio.sleep(random_.random() * 0.003)
    return done


async def record(kind: str, place: str, options: dict[str, str]) -> dict[str, list[Operation]]:
    """The operations of several tasks, each with a store object of its own."""
    name, operations = options["name"], int(options["operations"])
    tasks = int(options["tasks"])
    stores = [open_store(kind, place, options) for _ in range(tasks)]
    try:
        if options["mode"] == "events":
            # Two engines share a store here: neither may trust what it keeps itself.
            counted = await asyncio.gather(
                *(
                    count(store, operations, random.Random(f"{options['seed']} {name} {at}"))
                    for at, store in enumerate([stores[0], *stores[:-1]])
                )
            )
            return {STUDENT: [operation for done in counted for operation in done]}
        hands = [
            Hand(store, f"{name}{at}", f"{options['seed']} {name} {at}")
            for at, store in enumerate(stores)
        ]
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
