"""The setting of every row: its own server, stores on it, and the duration."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from redis.asyncio import Redis

from lo_kvs.ingest.event_log import EventLogs
from lo_kvs.kvs import KVS, PersistentRedisKVS, Store, codec
from lo_kvs.measure.timing import Miscount
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.simulate import simulate
from lo_kvs.stream_analytics.engine.fold import Event
from lo_kvs.testing.servers.server import RedisServer

LOGS_VARIABLE = "LOKVS_REAL_LOGS"


@dataclasses.dataclass
class Setting:
    """The server that a run of rows works on, and the size of that work.

    quick       seconds in all instead of minutes: shows that it works, not how fast
    rounds      of each comparison, besides the one that warms up
    seconds     of one round
    logs        folder of the class logs; without one, a simulated class
    store_type  makes the stores that are measured
    """

    server: RedisServer
    client: Redis
    quick: bool = False
    rounds: int = 7
    seconds: float = 0.6
    logs: Path | None = None
    store_type: type[PersistentRedisKVS] = PersistentRedisKVS

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, *, quick: bool, **options: Any) -> AsyncIterator[Self]:
        """A setting with a new server, which ends with it."""
        if quick:
            options = {"rounds": 2, "seconds": 0.03} | options
        with RedisServer() as server:
            async with Redis.from_url(server.url) as client:
                yield cls(server, client, quick, **options)

    @contextlib.asynccontextmanager
    async def on_own_server(self) -> AsyncIterator[Self]:
        """The same on another new server: what is left there in memory slows no other row down."""
        with RedisServer() as server:
            async with Redis.from_url(server.url) as client:
                yield dataclasses.replace(self, server=server, client=client)

    @contextlib.asynccontextmanager
    async def store(self, *, database: int = 0) -> AsyncIterator[Store]:
        """A store on the server, with nothing in its process yet; it becomes `KVS()` too."""
        async with self.store_type(connection=self.where(database)) as store:
            with default_store(store):
                await store.exists("connected")
                yield store

    def url(self, database: int = 0) -> str:
        """The address of one of the server's databases."""
        return self.server.url.removesuffix("/0") + f"/{database}"

    def where(self, database: int = 0) -> RedisSettings:
        """The same, for a store."""
        return RedisSettings(url=self.url(database))

    async def fresh(self) -> None:
        """Empty the server; it is our own process."""
        await self.client.flushall()

    async def check_count(self, name: str, keys: Iterable[str], sent: int) -> None:
        """Raises `Miscount` where the states at `keys` do not count `sent` events together."""
        await check_count(name, self.client, keys, sent)

    async def input_bytes(self) -> int:
        """What the server has received so far, at its sockets."""
        return int((await self.client.info("stats"))["total_net_input_bytes"])

    def class_events(self) -> list[Event]:
        """The events of the class logs, or of a simulated class of about the same size."""
        if self.quick:
            return list(simulate(10, 150))
        if self.logs is None:
            return list(simulate(10, 10_000))
        return [item.event for batch in self._logs().batches() for item in batch if not item.fault]

    def class_name(self) -> str:
        """What `class_events` are, for the table."""
        return "a simulated class" if self.quick or self.logs is None else "the class logs"

    def _logs(self) -> EventLogs:
        folder = self.logs or Path()
        names = sorted([*folder.glob("*.study.log"), *folder.glob("*.study.log.gz")])
        if not names:
            raise FileNotFoundError(f"there are no event logs (*.study.log[.gz]) in {folder}")
        return EventLogs([str(name) for name in names])


def logs_folder(named: str | None) -> Path | None:
    """The folder of the class logs: as named, or as the environment says."""
    named = named or os.environ.get(LOGS_VARIABLE)
    return Path(named) if named else None


@contextlib.contextmanager
def default_store(store: Store) -> Iterator[None]:
    """Have `store` as `KVS()`, where decorated reducers look for it."""
    before = KVS() if "default" in KVS.names() else None
    KVS.add_item("default", store)
    try:
        yield
    finally:
        KVS.remove_item("default")
        if before is not None:
            KVS.add_item("default", before)


async def counted(client: Redis, keys: Iterable[str]) -> int:
    """The sum of the counts in the states at `keys`; read past the store that is measured."""
    wanted = list(keys)
    total = 0
    for start in range(0, len(wanted), 5000):
        texts: Any = await client.mget(wanted[start : start + 5000])
        for text in texts:
            state: Any = {"count": 0} if text is None else codec.decode(text)
            total += state["count"]
    return total


async def check_count(name: str, client: Redis, keys: Iterable[str], sent: int) -> None:
    """Raises `Miscount` where the states at `keys` do not count `sent` events together."""
    no_miscount(name, sent, await counted(client, keys))


def no_miscount(name: str, sent: int, found: int) -> None:
    """Raises `Miscount` where not every event that was sent was found to be counted once."""
    if found != sent:
        raise Miscount(f"{name}: {sent:,} events were acknowledged, {found:,} are counted")
