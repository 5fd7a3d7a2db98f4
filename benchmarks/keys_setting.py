"""Databases with few and with many states, for P6, and the writers to them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from benchmarks.setting import Setting
from benchmarks.work import counting, event_of, flat_state, keys_of
from lo_kvs.kvs import Store, codec

#: Keys of the stores that are compared, each in a database of its own of one server.
KEYS: Final = (1_000, 10_000, 100_000, 1_000_000)
QUICK_KEYS: Final = (100, 1_000)
KEY_STATE_BYTES: Final = 100
ACTIVE: Final = 1_000  # students who are writing now, whatever the store holds besides
GROUP: Final = 500
ROUND_EVENTS: Final = 30_000
NULL: Final = flat_state(KEY_STATE_BYTES)
REDUCER: Final = counting(NULL, "of_many_keys")
KEY, EXTERNAL = keys_of(REDUCER, "many-")  # a student's number follows


class Database(NamedTuple):
    """A database with so many states, and the store on it."""

    keys: int
    client: Redis
    store: Store


@contextlib.asynccontextmanager
async def filled(setting: Setting, number: int, count: int) -> AsyncIterator[Database]:
    """Database `number` of the server, with `count` states, both halves of each."""
    text, shown = codec.encode(NULL), codec.encode({"count": 0, "last_time": None})
    async with (
        Redis.from_url(setting.url(number)) as client,
        setting.store_type(connection=setting.where(number)) as store,
    ):
        for start in range(0, count, 10_000):
            async with client.pipeline(transaction=False) as pipe:
                for first in range(start, min(start + 10_000, count), 1000):
                    students = range(first, min(first + 1000, count))
                    pipe.mset({key_for(student): text for student in students})
                    # Else each event on a state makes a key, but for the few of a small store.
                    pipe.mset({f"{EXTERNAL}{student}": shown for student in students})
                await pipe.execute()
        yield Database(count, client, store)


def round_of(setting: Setting, database: Database) -> tuple[int, int]:
    """How many events a round has, and how many of them are under way at a time."""
    length = 500 if setting.quick else ROUND_EVENTS
    return length, min(GROUP, ACTIVE, database.keys)


def students_of(database: Database, cache_bytes: int) -> Iterator[int]:
    """Those who write, over and over: all there are, or the active ones, spread over the keys."""
    active = min(ACTIVE, database.keys) if cache_bytes else database.keys
    return itertools.cycle(range(0, database.keys, database.keys // active))


def event_for(student: int) -> dict[str, Any]:
    return event_of(f"many-{student}")


def key_for(student: int) -> str:
    return f"{KEY}{student}"
