"""PersistentRedisKVS and EphemeralRedisKVS: values as plain JSON text under plain keys."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from lo_kvs.kvs.backend import GROUP_KEYS_MAX, Submit
from lo_kvs.kvs.batching.deadlines import RetryBudget
from lo_kvs.kvs.changes import (
    RESERVED_PREFIX,
    Change,
    Outcome,
    check_changes,
    check_deadline,
    check_key,
    check_keys,
    is_key,
)
from lo_kvs.kvs.errors import ClearRefused, InvalidKey, KVSError
from lo_kvs.kvs.redis.batch_limits import CHANGES, LANES, BatchLimits
from lo_kvs.kvs.redis.cluster.client import ClusterClient, check_cluster_prefix
from lo_kvs.kvs.redis.durability import WAIT_TIMEOUT_S, Durability
from lo_kvs.kvs.redis.server.client import ServerClient
from lo_kvs.kvs.store import Store
from lo_kvs.redis_connection import RedisSettings, default_settings

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class PersistentRedisKVS(Store):
    """Keeps values in Redis, without an expiry.

    prefix      prefix of every key in Redis, so that several stores, or other programs, can
                share one server; default: none
    connection  the server; default: the `redis_connection` block of the settings

    wait_replicas, wait_aof, wait_timeout  what a commit waits for, see
                `kvs.redis.durability.Durability`; default: nothing
    lanes, group_changes  how commits to a single server are grouped, see
                `kvs.redis.batch_limits.BatchLimits`

    Values survive a restart if Redis stores them: enable appendonly or snapshots there.
    Any number of event loops and processes may use the same data.
    """

    def __init__(
        self,
        *,
        prefix: str = "",
        connection: RedisSettings | None = None,
        wait_replicas: int = 0,
        wait_aof: bool = False,
        wait_timeout: float = WAIT_TIMEOUT_S,
        lanes: int = LANES,
        group_changes: int = CHANGES,
    ) -> None:
        super().__init__()
        prefix = check_key(prefix)
        if prefix and RESERVED_PREFIX.startswith(prefix):
            raise InvalidKey(
                prefix,
                f"{RESERVED_PREFIX!r} starts with this `prefix`, so keys could collide with the "
                "store's own records. Choose another prefix",
            )
        self._grouping = BatchLimits(lanes, group_changes)
        if connection is not None:
            self._grouping.check_pool(connection)
            if connection.cluster:
                check_cluster_prefix(prefix)
        self._prefix = prefix
        self._durability = Durability(wait_replicas, wait_aof, wait_timeout)
        self._ttl_ms = 0
        self._settings = connection
        self._clients: dict[asyncio.AbstractEventLoop, ServerClient | ClusterClient] = {}
        self._latest: ServerClient | ClusterClient | None = None  # spares most calls the look-up

    def _place(self) -> str:
        settings = self._settings
        place = "the default connection" if settings is None else settings.place
        ttl = f", expiry {self._ttl_ms / 1000:g} s" if self._ttl_ms else ""
        return f"on {place}" + (f", prefix {self._prefix!r}" if self._prefix else "") + ttl

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        self._check_open()
        check_deadline(deadline)
        names = check_keys(keys)
        if not names:
            return []
        found = await _all_of(self._running().reader.submit, names, deadline)
        for data in found:
            if isinstance(data, KVSError):
                raise data
        return [data for data in found if not isinstance(data, KVSError)]

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self._check_open()
        check_deadline(deadline)
        checked = check_changes(changes)
        if not checked:
            return []
        return await _all_of(self._running().submit, checked, deadline)

    def submitter_for(self, guard: str) -> Submit:
        self._check_open()
        return self._running().submitter_for(guard)

    def try_for_s(self) -> float | None:
        self._check_open()
        return self._running().try_for_s

    def failed_attempts(self) -> int:
        client = self._clients.get(asyncio.get_running_loop())
        return 0 if client is None else client.failed_attempts

    def fails_as_a_whole(self) -> bool:
        return isinstance(self._running(), ServerClient)

    async def scan(
        self, prefix: str = "", *, budget: RetryBudget | None = None
    ) -> AsyncGenerator[str, None]:
        self._check_open()
        prefix = check_key(prefix)
        client = self._running()
        seen: set[bytes] = set()  # SCAN may return a key more than once
        # Close explicitly, so that an iteration that ends early returns its connection at once.
        async with contextlib.aclosing(
            client.names(prefix, budget or self.retry_budget())
        ) as names:
            async for name in names:
                if name in seen or name.startswith(RESERVED_PREFIX.encode()):
                    continue
                seen.add(name)
                key = client.key_of(name)
                if key is None or not key.startswith(prefix):  # of another program, or no match
                    continue
                if is_key(key):  # otherwise no store accepts it
                    yield key

    async def clear(self, *, everything: bool = False) -> None:
        if not self._prefix and not everything:
            raise ClearRefused(
                "this store has no `prefix`, so clear() would remove every string in the Redis "
                "database, including those of other programs. To do that, call "
                "clear(everything=True)"
            )
        budget = self.retry_budget()
        part: list[tuple[str, None]] = []
        async for key in self.scan(budget=budget):
            part.append((key, None))
            if len(part) == GROUP_KEYS_MAX:
                await self._remove_part(part, budget)
                part.clear()
        await self._remove_part(part, budget)

    async def _remove_part(self, part: Sequence[tuple[str, None]], budget: RetryBudget) -> None:
        with budget.step(self.failed_attempts) as deadline:
            await self._put(part, deadline=deadline)

    async def aclose(self) -> None:
        """Close the store after everything that was submitted on this event loop is answered."""
        await super().aclose()
        for client in self._clients.values():
            client.close(self._closed_text())
        here = self._clients.pop(asyncio.get_running_loop(), None)
        self._latest = None
        if here is not None and here.is_ours():
            await here.aclose()

    def _running(self) -> ServerClient | ClusterClient:
        """The client of the running event loop."""
        loop = asyncio.get_running_loop()
        if self._latest is not None and self._latest.is_on(loop):
            return self._latest
        client = self._clients.get(loop)
        if client is None or not client.is_ours():
            for ended in [loop for loop in list(self._clients) if loop.is_closed()]:
                self._clients.pop(ended, None)
            # Read the settings at the first use, so that a store can be created before them.
            where = self._settings or default_settings()
            self._grouping.check_pool(where)
            make = ClusterClient if where.cluster else ServerClient
            client = make(
                where,
                prefix=self._prefix,
                ttl_ms=self._ttl_ms,
                durability=self._durability,
                grouping=self._grouping,
            )
            self._clients[loop] = client
        self._latest = client
        return client


class EphemeralRedisKVS(PersistentRedisKVS):
    """Keeps each value in Redis for `expire` seconds after its last write.

    The TTL is set by the same command as the value and refreshed by each write. For the other
    parameters, see `PersistentRedisKVS`.
    """

    def __init__(
        self,
        expire: float = 30,
        *,
        prefix: str = "",
        connection: RedisSettings | None = None,
        wait_replicas: int = 0,
        wait_aof: bool = False,
        wait_timeout: float = WAIT_TIMEOUT_S,
        lanes: int = LANES,
        group_changes: int = CHANGES,
    ) -> None:
        super().__init__(
            prefix=prefix,
            connection=connection,
            wait_replicas=wait_replicas,
            wait_aof=wait_aof,
            wait_timeout=wait_timeout,
            lanes=lanes,
            group_changes=group_changes,
        )
        if not 0.001 <= expire < math.inf:
            raise KVSError(f"`expire` must be a millisecond or more, got {expire} seconds")
        self._ttl_ms = round(expire * 1000)


async def _all_of(
    submit: Callable[[Item, Callable[[Answer], object], float | None], None],
    items: Sequence[Item],
    deadline: float | None,
) -> list[Answer]:
    """Submit every item, and wait for all answers on a single future."""
    answers: dict[int, Answer] = {}
    complete: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(at: int, answer: Answer) -> None:
        answers[at] = answer
        if len(answers) == len(items) and not complete.done():  # done: the caller left
            complete.set_result(None)

    for at, item in enumerate(items):
        submit(item, functools.partial(answered, at), deadline)
    await complete
    return [answers[at] for at in range(len(items))]
