"""Compares two stores key by key and byte by byte, after a copy from one into the other."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from lo_kvs.copying.groups import Groups, Known, Lookup
from lo_kvs.kvs import Change, Conflict, KVSError, NotReplicated, Store, WrongType

#: How many keys of each difference are named.
NAMED_MAX: Final = 5


class Difference(enum.Enum):
    """How a key differs between source and target."""

    OTHER = "with a different value in the target"
    FOREIGN = "with another program's data type in the target"
    MISSING = "copied, but since removed from the target"
    CHANGED = "changed in the source during the copy"
    ADDED = "added to the source during the copy"
    REMOVED = "removed from the source during the copy"


#: Differences that a source in use causes. `catch_up` copies them.
MEANWHILE: Final = frozenset({Difference.CHANGED, Difference.ADDED, Difference.REMOVED})


class Differences:
    """How many keys differ in each way, and some of them by name."""

    def __init__(self) -> None:
        self.counts: dict[Difference, int] = {}
        self.names: dict[Difference, list[str]] = {}

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, kind: Difference, key: str) -> None:
        """Count a key, and name it if few were named so far."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        named = self.names.setdefault(kind, [])
        if len(named) < NAMED_MAX:
            named.append(key)


@dataclass
class Checked:
    """The result of a comparison, in keys.

    source, target  the number of keys in each
    equal           keys with the same bytes in both
    extra           keys only in the target, not written by this copy
    differences     all other keys
    caught_up       keys changed, added or removed in the source during the copy, and copied again
    pending         of those, keys not yet replicated as the target's `wait_…` options require
    """

    source: int = 0
    target: int = 0
    equal: int = 0
    extra: int = 0
    differences: Differences = field(default_factory=Differences)
    caught_up: int = 0
    pending: int = 0


class Comparison:
    """One comparison of all keys of two stores; `checked` is the result so far.

    known   the values that the copy has seen in the target: shows which store changed
    repair  copy the source's changes again: counted in `caught_up`, not as differences
    """

    def __init__(
        self,
        source: Store,
        target: Store,
        *,
        groups: Groups,
        known: Known,
        repair: bool = False,
        on_progress: Callable[[], object] = lambda: None,
    ) -> None:
        self._source = source
        self._target = target
        self._groups = groups
        self._known = known
        self._repair = repair
        self._on_progress = on_progress
        self.checked = Checked()
        self._in_both = 0
        self.repairs = 0  # attempts; each may have lost a race with another writer

    async def run(self) -> None:
        """Compare. Raises what the stores raise."""
        async with aclosing(self._groups.of(self._source)) as groups:
            async for keys in groups:
                await self._compare_group(keys)
                self._on_progress()
        async with aclosing(self._groups.of(self._target)) as groups:
            async for keys in groups:
                self.checked.target += len(keys)
        if self.checked.target > self._in_both:
            await self._look_for_removed()

    async def _compare_group(self, keys: Sequence[str]) -> None:
        values = await self._groups.values(self._source, keys)
        self.checked.source += len(values)
        repairs: list[Change] = []
        for key, found in await self._groups.read(self._target, list(values)):
            self._in_both += isinstance(found, bytes)
            if found == values[key]:
                self.checked.equal += 1
            else:
                kind = self._kind(key, values[key], found)
                repairs += self._differs(kind, Change(key, None, {key: values[key]}), found)
        await self._repair_all(repairs)

    def _kind(self, key: str, here: bytes, there: Lookup) -> Difference:
        """How a key of the source differs."""
        if isinstance(there, WrongType):
            return Difference.FOREIGN
        if there is None:
            copied = self._known.has(key, here)
            return Difference.MISSING if copied else Difference.ADDED
        return Difference.CHANGED if self._known.has(key, there) else Difference.OTHER

    async def _look_for_removed(self) -> None:
        """Check keys that only the target has: written by this copy, or not."""
        async with aclosing(self._groups.of(self._target)) as groups:
            async for keys in groups:
                await self._look_at_target(keys)
                self._on_progress()

    async def _look_at_target(self, keys: Sequence[str]) -> None:
        here = await self._groups.read(self._source, keys)
        alone = [key for key, found in here if found is None]
        repairs: list[Change] = []
        for key, found in await self._groups.read(self._target, alone):
            if isinstance(found, bytes) and self._known.has(key, found):
                repairs += self._differs(Difference.REMOVED, Change(key, None, {key: None}), found)
            elif found is not None:
                self.checked.extra += 1
        await self._repair_all(repairs)

    def _differs(self, kind: Difference, change: Change, there: Lookup) -> list[Change]:
        """Count a difference, or return the change that repairs it."""
        if self._repair and kind in MEANWHILE and not isinstance(there, WrongType):
            # Only over the bytes that were just read: writes of others in the target stay.
            return [change._replace(expected=there)]
        self.checked.differences.add(kind, change.guard)
        return []

    async def _repair_all(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        self.repairs += len(changes)
        failed: KVSError | None = None
        for change, outcome in zip(changes, await self._target.commit(changes), strict=True):
            if isinstance(outcome, Conflict | WrongType):
                continue  # written by others since; the next comparison reports it
            if outcome is not None and not isinstance(outcome, NotReplicated):
                failed = failed or outcome
                continue
            self.checked.caught_up += 1
            self.checked.pending += outcome is not None
            data = change.puts[change.guard]
            if data is not None:
                self._known.add(change.guard, data)
        if failed is not None:
            raise failed
