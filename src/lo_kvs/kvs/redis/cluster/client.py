"""ClusterClient: one event loop's client for a Redis cluster, with the interface of ServerClient.

Changes go to the writer of their slot; each key to read becomes a request. `RequestRouter` sends
both to the node that currently serves the slot.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import AsyncGenerator, Callable
from typing import Final

from lo_kvs.kvs.backend import Submit
from lo_kvs.kvs.batching.deadlines import RetryBudget
from lo_kvs.kvs.batching.overdue_timer import CHECK_EVERY_S
from lo_kvs.kvs.changes import Change, Outcome
from lo_kvs.kvs.errors import InvalidKey, Refused, StoreClosed, shorten
from lo_kvs.kvs.redis.batch_limits import USUAL, BatchLimits
from lo_kvs.kvs.redis.cluster.requests import KeyRead
from lo_kvs.kvs.redis.cluster.routing import RequestRouter
from lo_kvs.kvs.redis.cluster.slot_writer import SlotWriter, name_of
from lo_kvs.kvs.redis.cluster.slots import slot_of
from lo_kvs.kvs.redis.cluster.submitter import GuardSubmitter
from lo_kvs.kvs.redis.durability import NO_WAITING, Durability
from lo_kvs.kvs.redis.key_names import cluster_pattern, key_of_cluster_name
from lo_kvs.kvs.redis.protocol.commit_script import RECORD_TTL_MIN_MS
from lo_kvs.kvs.redis.server.connection import Lookup
from lo_kvs.kvs.redis.server.scan import scan_strings
from lo_kvs.redis_connection import RedisSettings

#: How often the keys are listed again if slots moved meanwhile.
SCANS_MAX: Final = 5


def check_cluster_prefix(prefix: str) -> None:
    """Raise `InvalidKey` for a prefix with braces, which would determine the slots of all keys."""
    if "{" in prefix or "}" in prefix:
        raise InvalidKey(
            prefix,
            "braces in the `prefix` of a store on a cluster would put all its keys into one slot, "
            "or separate those of one reducer. Choose a prefix without braces",
        )


class ClusterClient(RequestRouter):
    """One event loop's client for a cluster: a writer per slot, and pipelines to the nodes.

    durability  what each pipeline of commits waits for before its changes are reported as made
    """

    def __init__(
        self,
        where: RedisSettings,
        *,
        prefix: str,
        ttl_ms: int,
        durability: Durability = NO_WAITING,
        grouping: BatchLimits = USUAL,
    ) -> None:
        check_cluster_prefix(prefix)
        super().__init__(where, durability)
        self._changes_max = grouping.changes
        self._prefix = prefix
        self._closed = ""
        self._writer = uuid.uuid4().hex
        self._ttls_ms = max(RECORD_TTL_MIN_MS, round(where.retry_for * 10_000)), ttl_ms
        self._writers: dict[int, SlotWriter] = {}
        self._watching = False
        # A cache for keys that are used repeatedly.
        self._slot = functools.lru_cache(16_384)(self._slot_of)
        self.reader = _Reader(self)

    # -- for the store -----------------------------------------------------------------

    def submit(
        self, change: Change, done: Callable[[Outcome], object], deadline: float | None = None
    ) -> None:
        """Make `change` with the next call of its slot."""
        self.check_open()
        slot = self._slot(change.guard)
        for key in change.puts:
            if self._slot(key) != slot:
                self._loop.call_soon(done, _parted(change.guard, key))
                return
        self._writer_of(slot).submit(change, done, deadline)

    def submitter_for(self, guard: str) -> Submit:
        """`submit` for the changes of this guard key; its slot and writer are looked up once."""
        return GuardSubmitter(self, self._writer_of(self._slot(guard)), guard).submit

    def check_open(self) -> None:
        """Raise `StoreClosed` if it is closed."""
        if self._closed:
            raise StoreClosed(self._closed)

    def close(self, why: str) -> None:
        """Accept no more changes; submitted ones are completed."""
        self._closed = why

    def read(
        self, key: str, done: Callable[[Lookup], object], deadline: float | None = None
    ) -> None:
        """Read `key` with the next pipeline to its node."""
        name = self._prefix + name_of(key)
        self.send(KeyRead(self, key, name.encode(), self._slot(key), done), deadline)

    async def names(self, key_prefix: str, budget: RetryBudget) -> AsyncGenerator[bytes, None]:
        """The names of keys that start with `key_prefix`; may contain others, and duplicates.

        If slots move between nodes meanwhile, all nodes are asked again.
        """
        pattern = cluster_pattern(self._prefix, key_prefix)
        await self._refresh_topology(budget)
        for _ in range(SCANS_MAX):
            version = self._topology.version
            for address in self._topology.primaries:
                steps = scan_strings(self._node(address), pattern, budget)
                async with contextlib.aclosing(steps) as found:
                    async for name in found:
                        yield name
            await self._refresh_topology(budget)
            if self._topology.version == version:
                return

    def key_of(self, name: bytes) -> str | None:
        """The key with this name in Redis; `None` if the name belongs to another program."""
        try:
            text = name.decode()
        except UnicodeDecodeError:
            return None
        return key_of_cluster_name(text.removeprefix(self._prefix))

    # -- for requests --------------------------------------------------------------------

    def read_name(
        self, name: bytes, slot: int, done: Callable[[Lookup], object], deadline: float
    ) -> None:
        """Read the value of a name in Redis."""
        self.send(KeyRead(self, self.key_of(name) or repr(name), name, slot, done), deadline)

    # -- queued changes ------------------------------------------------------------------

    def watch(self) -> None:
        """Check for overdue changes, 20 times a second while requests are in flight."""
        if not self._watching:
            self._watching = True
            self._loop.call_later(CHECK_EVERY_S, self._check)

    def _check(self) -> None:
        if not self._unanswered:
            self._watching = False
            return
        now = self._loop.time()
        if self.is_stuck(now - CHECK_EVERY_S):
            for writer in list(self._writers.values()):
                writer.check_overdue(now)
        self._loop.call_later(CHECK_EVERY_S, self._check)

    # -- slots and their writers ---------------------------------------------------------

    def _slot_of(self, key: str) -> int:
        return slot_of((self._prefix + name_of(key)).encode())

    def _writer_of(self, slot: int) -> SlotWriter:
        writer = self._writers.get(slot)
        if writer is None:
            prefix = self._prefix.encode()
            writer = SlotWriter(
                self,
                slot,
                self._writer,
                prefix=prefix,
                ttls_ms=self._ttls_ms,
                changes_max=self._changes_max,
            )
            self._writers[slot] = writer
        return writer


class _Reader:
    """Reads keys, with the interface of a single server's reader."""

    def __init__(self, client: ClusterClient) -> None:
        self.submit = client.read


def _parted(guard: str, key: str) -> Refused:
    return Refused(
        f"{shorten(guard)} and {shorten(key)} are in different slots of the cluster, so one "
        "change cannot contain both. Nothing was written. Give keys that change together the same "
        "hash tag, such as 'a{tag}' and 'b{tag}'; keys of one reducer and entity already share one"
    )
