"""The baselines of the rows: common ways to update state in Redis, written with redis-py.

`ReadSetSet` is a minimal version of the existing Learning Observer: one GET of the Internal
state, a SET of the null state if there is none, a SET of each half; so three round trips per
event, with the standard library's json. Production uses more (18 SET and 12 GET per event of the
class logs were counted), but the baseline should not be weak. It loses events if two sessions
share a state. `Watched` and `Compared` do not; redis-py's documentation describes both.

Each has `process(keys, event)`, which is awaited for each event, like a reducer's.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import WatchError

from lo_kvs.kvs.codec import Json
from lo_kvs.stream_analytics.engine.fold import Event, StateKeys

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
                    pipe.multi()  # type: ignore[no-untyped-call]
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
