"""A trial store: collects in memory what would be written to another store."""

from __future__ import annotations

from collections.abc import Sequence

from lo_kvs.kvs import Change, InMemoryKVS, Outcome, Store


class TrialStore(InMemoryKVS):
    """Reads missing keys from `below`, and keeps all writes in memory.

    `scan` lists only keys that were read or written here.
    """

    def __init__(self, below: Store) -> None:
        super().__init__()
        self._below = below
        self._known: set[str] = set()

    async def read(
        self, keys: Sequence[str], *, deadline: float | None = None
    ) -> list[bytes | None]:
        await self._fetch(keys, deadline)
        return await super().read(keys)

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        await self._fetch([change.guard for change in changes], deadline)
        for change in changes:
            self._known.update(change.puts)
        return await super().commit(changes)

    async def _fetch(self, keys: Sequence[str], deadline: float | None) -> None:
        unknown = [key for key in dict.fromkeys(keys) if key not in self._known]
        found = await self._below.read(unknown, deadline=deadline) if unknown else []
        for key, data in zip(unknown, found, strict=True):
            if key not in self._known:  # another call may have read it first
                self._known.add(key)
                if data is not None:
                    self._texts[key] = data
