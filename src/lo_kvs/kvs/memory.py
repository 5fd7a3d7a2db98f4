"""InMemoryKVS: a store in the memory of this process, a dictionary of JSON texts."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Sequence

from lo_kvs.kvs.batching.deadlines import RetryBudget
from lo_kvs.kvs.changes import (
    Change,
    Conflict,
    Guard,
    Outcome,
    check_changes,
    check_deadline,
    check_key,
    check_keys,
)
from lo_kvs.kvs.store import Store


class InMemoryKVS(Store):
    """Keeps values in the memory of this process; they are lost when it ends.

    For tests and prototypes. It stores JSON text, not objects, so that it behaves exactly like
    the other stores. Every instance is a separate store; the router creates one per configured
    name.
    """

    def __init__(self) -> None:
        super().__init__()
        self._texts: dict[str, bytes] = {}
        self._lock = threading.Lock()  # event loops may share a store

    def _place(self) -> str:
        return "in this process"

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        self._check_open()
        check_deadline(deadline)
        return [self._texts.get(key) for key in check_keys(keys)]

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self._check_open()
        check_deadline(deadline)
        return [self._commit_one(change) for change in check_changes(changes)]

    async def scan(
        self, prefix: str = "", *, budget: RetryBudget | None = None
    ) -> AsyncIterator[str]:
        self._check_open()
        prefix = check_key(prefix)
        for key in [key for key in list(self._texts) if key.startswith(prefix)]:
            yield key

    def _commit_one(self, change: Change) -> Conflict | None:
        texts = self._texts
        with self._lock:
            current = texts.get(change.guard)
            if change.expected is not Guard.ANY and change.expected != current:
                return Conflict(current)
            for key, data in change.puts.items():
                if data is None:
                    texts.pop(key, None)
                else:
                    texts[key] = data
        return None
