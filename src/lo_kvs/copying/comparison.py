"""Two stores compared key by key and byte by byte, after a copy from one into the other."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

from lo_kvs.copying.groups import Groups, Known, Lookup
from lo_kvs.kvs import Change, Conflict, KVSError, NotReplicated, Store, WrongType

#: So many keys of each difference are named.
NAMED_MAX: Final = 5


class Difference(enum.Enum):
    """How a key differs between source and target."""

    OTHER = "with other bytes in the target"
    FOREIGN = "with something other than a value in the target: another program's"
    MISSING = "that was copied, and is gone from the target"
    CHANGED = "that the source changed meanwhile"
    ADDED = "that came into the source meanwhile"
    REMOVED = "that was removed from the source meanwhile"


#: What a source that is in use does. `catch_up` makes these good.
MEANWHILE: Final = frozenset({Difference.CHANGED, Difference.ADDED, Difference.REMOVED})


class Differences:
    """How many keys differ in each way, and some of them by name."""

    def __init__(self) -> None:
        self.counts: dict[Difference, int] = {}
        self.names: dict[Difference, list[str]] = {}

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, kind: Difference, key: str) -> None:
        """Count a key, and name it where few were named."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        named = self.names.setdefault(kind, [])
        if len(named) < NAMED_MAX:
            named.append(key)


@dataclass
class Checked:
    """What a comparison found, in keys.

    source, target  how many there are
    equal           the same bytes in both
    extra           in the target only, and not put there by this copy
    differences     all others
    caught_up       changed, added or removed in the source meanwhile, and made good
    pending         of those, how many are not yet where the target's `wait_…` options ask for
    """

    source: int = 0
    target: int = 0
    equal: int = 0
    extra: int = 0
    differences: Differences = field(default_factory=Differences)
    caught_up: int = 0
    pending: int = 0


class Comparison:
    """One look at every key of two stores; `checked` is what it found so far.

    known   what the copy has seen in the target: tells who changed what
    repair  make good what the source did meanwhile: counted in `caught_up`, not as a difference
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
        self.repairs = 0  # tried; each may have met a write of others

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
        await self._make_good(repairs)

    def _kind(self, key: str, here: bytes, there: Lookup) -> Difference:
        """What became of a key that the source has."""
        if isinstance(there, WrongType):
            return Difference.FOREIGN
        if there is None:
            copied = self._known.has(key, here)
            return Difference.MISSING if copied else Difference.ADDED
        return Difference.CHANGED if self._known.has(key, there) else Difference.OTHER

    async def _look_for_removed(self) -> None:
        """Keys that the target alone has: put there by this copy, or not."""
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
        await self._make_good(repairs)

    def _differs(self, kind: Difference, change: Change, there: Lookup) -> list[Change]:
        """Count a difference, or return the change that makes it good."""
        if self._repair and kind in MEANWHILE and not isinstance(there, WrongType):
            # Only over what was just seen: what others write in the target stays.
            return [change._replace(expected=there)]
        self.checked.differences.add(kind, change.guard)
        return []

    async def _make_good(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        self.repairs += len(changes)
        failed: KVSError | None = None
        for change, outcome in zip(changes, await self._target.commit(changes), strict=True):
            if isinstance(outcome, Conflict | WrongType):
                continue  # written by others since; the look that follows tells it
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
