"""What others do with a Redis, written afresh on redis-py: the baselines of the rows.

`ReadSetSet` is the existing Learning Observer's way, at its leanest: one GET of the Internal
state, a SET of the null state where there is none, a SET of each half; so three round trips
for an event, with the standard library's json. (What runs in the field makes four or five.)
It loses events where two sessions share a state. `Watched` and `Compared` do not; they are
the two ways that redis-py's documentation knows for that.

Each has `process(keys, event)`, to be awaited once for each event, like a reducer's.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import WatchError

from learning_observer.kvs import scripts
from learning_observer.kvs.codec import Json
from learning_observer.kvs.store import RESERVED_PREFIX, Change
from learning_observer.measure.timing import Miscount
from learning_observer.stream_analytics.fold import Event, StateKeys

Function = Callable[[Any, Any], Awaitable[Any]]

COMPARE_AND_SET: Final = """
local current = redis.call('GET', KEYS[1])
if (current or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
"""


class Baseline(Protocol):
    """One way to run an event through a reducer."""

    async def process(self, keys: StateKeys, event: Event) -> Any:
        """Reduce `event` into the state at `keys`; returns the External state."""


class ReadSetSet:
    """GET, reduce, SET, SET: nothing keeps two sessions apart."""

    def __init__(self, client: Redis, function: Function, null_state: Json) -> None:
        self._client = client
        self._function = function
        self._null = json.dumps(null_state)

    async def process(self, keys: StateKeys, event: Event) -> Any:
        text = await self._client.get(keys.internal)
        if text is None:
            await self._client.set(keys.internal, self._null)
            text = self._null
        internal, external = await self._function(event, json.loads(text))
        if internal is not False:
            await self._client.set(keys.internal, json.dumps(internal))
        if external is not False:
            await self._client.set(keys.external, json.dumps(external))
        return external


class Watched:
    """WATCH, GET, reduce, MULTI, SET, SET, EXEC; again from the start after a conflict."""

    def __init__(self, client: Redis, function: Function, null_state: Json) -> None:
        self._client = client
        self._function = function
        self._null = json.dumps(null_state)

    async def process(self, keys: StateKeys, event: Event) -> Any:
        async with self._client.pipeline(transaction=True) as pipe:
            while True:
                try:
                    await pipe.watch(keys.internal)
                    text = await pipe.get(keys.internal)
                    internal, external = await self._function(event, json.loads(text or self._null))
                    pipe.multi()
                    pipe.set(keys.internal, json.dumps(internal))
                    pipe.set(keys.external, json.dumps(external))
                    await pipe.execute()
                except WatchError:
                    continue
                return external


class Compared:
    """GET, reduce, compare-and-set in a script; again from the start after a conflict."""

    def __init__(self, client: Redis, function: Function, null_state: Json) -> None:
        self._client = client
        self._function = function
        self._null = json.dumps(null_state)
        self._script = client.register_script(COMPARE_AND_SET)

    async def process(self, keys: StateKeys, event: Event) -> Any:
        while True:
            text = await self._client.get(keys.internal)
            internal, external = await self._function(event, json.loads(text or self._null))
            args = [text or b"", json.dumps(internal), json.dumps(external)]
            if await self._script(keys=list(keys), args=args):
                return external


class BareCommit:
    """The very command that a commit of ours sends, as a bare EVALSHA of redis-py.

    Each call is one of a writer, under a number of its own, so that each runs in full.
    """

    def __init__(self, client: Redis, writer: str) -> None:
        self._client = client
        self._record = f"{RESERVED_PREFIX}writer:{writer}".encode()
        self._number = 0

    def call(self, *changes: Change) -> scripts.Call:
        """The call that makes `changes`, packed as ours are."""
        self._number += 1
        return scripts.pack(
            deque([(change, lambda _: None) for change in changes]),
            prefix="",
            record=self._record,
            number=self._number,
            record_ttl_ms=600_000,
            ttl_ms=0,
        )

    async def send(self, call: scripts.Call) -> None:
        """One round trip. Raises `Miscount` where not every change was made."""
        digest = scripts.COMMIT.digest
        reply = await self._client.evalsha(digest, len(call.keys), *call.keys, *call.args)
        if reply != [b"c" * len(call.group)]:
            raise Miscount(f"a bare commit was answered {reply!r:.200}")
