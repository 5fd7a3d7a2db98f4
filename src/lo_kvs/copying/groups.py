"""Reads keys and values in groups that fit into memory, and remembers which values were seen."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import AsyncGenerator, Sequence
from typing import Final, TypeAlias

from lo_kvs.kvs import Store, WrongType
from lo_kvs.kvs.backend import GROUP_KEYS_MAX
from lo_kvs.kvs.batching.turns import Turns

#: Bytes of values in one group, estimated from the sizes of earlier values.
GROUP_BYTES: Final = 4 * 1024 * 1024
_GROUP_KEYS_FIRST: Final = 16
_BUCKETS: Final = 4096

#: The result of reading a key: bytes, nothing, or the error for another data type.
Lookup: TypeAlias = bytes | WrongType | None


class Groups:
    """Lists and reads keys in groups: many where values are small, few where they are large."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._keys = _GROUP_KEYS_FIRST

    async def of(self, store: Store) -> AsyncGenerator[list[str], None]:
        """The keys of `store` that start with the prefix. Use it in `aclosing`."""
        group: list[str] = []
        turns = Turns()  # stores in memory never wait
        keys = store.scan(self._prefix)
        try:
            async for key in keys:
                group.append(key)
                if turns.due():
                    await turns.pause()
                if len(group) >= self._keys:
                    yield group
                    group = []
            if group:
                yield group
        finally:
            if isinstance(
                keys, AsyncGenerator
            ):  # otherwise it would still be open when the loop ends
                await keys.aclose()

    async def read(self, store: Store, keys: Sequence[str]) -> list[tuple[str, Lookup]]:
        """Each key with the result of reading it."""
        if not keys:
            return []
        found = await _read_each(store, keys)
        sizes = [len(data) for data in found if isinstance(data, bytes)]
        if sizes:  # absent keys say nothing about the next sizes
            fitting = GROUP_BYTES * len(sizes) // max(sum(sizes), 1)
            # Grow slowly: the next values may be larger.
            self._keys = max(1, min(fitting, max(2 * len(sizes), self._keys), GROUP_KEYS_MAX))
        return list(zip(keys, found, strict=True))

    async def values(self, store: Store, keys: Sequence[str]) -> dict[str, bytes]:
        """The keys that have a value, with it: others were removed since they were listed."""
        found = await self.read(store, keys)
        return {key: data for key, data in found if isinstance(data, bytes)}


class Known:
    """The values that a copy has seen in its target: eight bytes for each.

    They distinguish keys that changed in the source from keys that changed in the target.
    """

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(_BUCKETS)]

    def add(self, key: str, data: bytes) -> None:
        """Remember that `key` had the value `data`."""
        number = _number(key, data)
        self._buckets[number % _BUCKETS].append(number)

    def has(self, key: str, data: bytes) -> bool:
        """Whether `key` was seen with the value `data`."""
        number = _number(key, data)
        return number in self._buckets[number % _BUCKETS]


def _number(key: str, data: bytes) -> int:
    digest = hashlib.blake2b(key.encode(), digest_size=8)
    digest.update(b"\0" + hashlib.blake2b(data).digest())
    return int.from_bytes(digest.digest(), "big")


async def _read_each(store: Store, keys: Sequence[str]) -> list[Lookup]:
    """The result of reading each key; a key of another data type does not fail the others."""
    try:
        return list[Lookup](await store.read(keys))
    except WrongType as error:
        if len(keys) == 1:
            return [error]
        half = len(keys) // 2
        return await _read_each(store, keys[:half]) + await _read_each(store, keys[half:])
