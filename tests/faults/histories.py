"""A history of many kinds of change, and all that stood in the server after each of its calls."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import redis
from tests.faults.worker import fault_count, key_of, metadata_of, one_more

from lo_kvs.kvs import KVS, Change, EphemeralRedisKVS, Guard, PersistentRedisKVS
from lo_kvs.kvs.redis.protocol import commit_script
from lo_kvs.kvs.redis.protocol.round_trips import Outcomes, Rounds
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.helpers import KeyStateType

#: Every key with its bytes, the records of the writers too, and whether it has a TTL.
Contents: TypeAlias = dict[bytes, tuple[bytes, bool]]

CALLS = 240
STUDENTS = ("s1", "s2", "s3")
KEPT_S = 3_600.0  # nothing expires while the test runs


@dataclass
class History:
    """What a history left behind.

    calls     what was sent, each once
    outcomes  the first answer to each, a letter for each change
    contents  what stood in the server before the first call, and after each
    sizes     bytes of the append-only file at the same moments
    """

    calls: list[commit_script.Call] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    contents: list[Contents] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def length_at(self, offset: int) -> int:
        """How many calls lie whole within so many bytes of the file."""
        return sum(size <= offset for size in self.sizes) - 1


def _bytes_at(client: redis.Redis, name: bytes) -> bytes:
    found = client.get(name)
    assert isinstance(found, bytes)
    return found


def contents_of(client: redis.Redis) -> Contents:
    """All that stands in the server."""
    return {
        name: (_bytes_at(client, name), int(str(client.pttl(name))) >= 0)
        for name in sorted(client.scan_iter(count=1_000))
    }


@contextmanager
def every_call_seen(see: Callable[[commit_script.Call, str], None]) -> Iterator[None]:
    """Have `see(call, outcomes)` called after each call that the stores' writers make."""
    kind: Any = commit_script.Call
    rounds = kind.rounds

    def tell(call: commit_script.Call) -> Rounds[Outcomes]:
        answer: Outcomes = yield from rounds(call)
        see(call, answer[0])
        return answer

    kind.rounds = tell
    try:
        yield
    finally:
        kind.rounds = rounds


async def make_history(url: str, size: Callable[[], int], seed: int) -> History:
    """Events, updates, changes of many keys, removals, conflicts, with a TTL and without."""
    history = History()
    drawn = random.Random(seed)
    where = RedisSettings(url=url)
    with redis.Redis.from_url(url) as client:

        def moment() -> None:
            history.contents.append(contents_of(client))
            history.sizes.append(size())

        def see(call: commit_script.Call, outcomes: str) -> None:
            history.calls.append(call)
            history.outcomes.append(outcomes)
            moment()

        moment()
        with every_call_seen(see):
            async with (
                PersistentRedisKVS(connection=where) as store,
                EphemeralRedisKVS(KEPT_S, prefix="short:", connection=where) as short,
            ):
                KVS.add_item("default", store)
                processes = [await fault_count(metadata_of(student)) for student in STUDENTS]
                while len(history.calls) < CALLS:
                    await _one_step(drawn, store, short, processes)
    return history


async def _one_step(
    drawn: random.Random, store: PersistentRedisKVS, short: EphemeralRedisKVS, processes: list[Any]
) -> None:
    either = drawn.choice([store, short])
    text = "x" * drawn.choice([1, 40, 600])
    match drawn.randrange(5):
        case 0 | 1:
            await drawn.choice(processes)("event", {})
        case 2:
            await either.update("counter", one_more)
        case 3:  # several keys at once, one of them removed
            keys = {f"part {number}": f'"{drawn.random()} {text}"'.encode() for number in range(4)}
            gone = drawn.choice([*keys, "part 9"])
            await either.commit([Change("part 0", Guard.ANY, {**keys, gone: None})])
        case _:  # two changes in one call, the second of which meets a conflict
            made = Change("one", Guard.ANY, {"one": f'"{drawn.random()}"'.encode(), "two": b"2"})
            await either.commit([made, Change("three,one", b"never there", {"four": b"4"})])


def halves(contents: Contents, student: str) -> tuple[int, int]:
    """A student's count in the Internal state and in the External one; 0: absent."""
    internal, external = (key_of(student, kind).encode() for kind in KeyStateType)
    state = json.loads(contents.get(internal, (b'{"count": 0}', False))[0])
    return int(state["count"]), int(contents.get(external, (b"0", False))[0])
