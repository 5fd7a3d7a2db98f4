"""A copy job: writes every key to the target, then compares both stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from lo_kvs.copying.comparison import Checked, Comparison, Difference, Differences
from lo_kvs.copying.groups import Groups, Known, Lookup
from lo_kvs.kvs import Change, Conflict, KVSError, NotReplicated, Store, WrongType, codec


@dataclass
class Tally:
    """The progress of a copy, in keys.

    seen      read from the source: the sum of the next five
    copied    written, the target did not have them
    replaced  written over a different value, with `overwrite`
    equal     already in the target with the same bytes
    left      kept, as they have a different value in the target
    foreign   kept, as they have another data type in the target
    corrupt   of those seen, keys whose value is not valid JSON
    pending   of those written, keys not yet replicated as the target's `wait_…` options require
    size      total bytes of the written values
    """

    seen: int = 0
    copied: int = 0
    replaced: int = 0
    equal: int = 0
    left: int = 0
    foreign: int = 0
    corrupt: int = 0
    pending: int = 0
    size: int = 0


class Copy:
    """One copy of the keys of `source` that start with `prefix` into `target`.

    overwrite    replace keys that have a different value in the target; default: keep them
    catch_up     `check` copies again what changed in the source during the copy; other
                 programs' changes in the target are still kept
    dry_run      only count: `tally` is what would be done, and nothing is written
    on_progress  called after each group of keys

    `tally` is valid after an error too; a new copy then skips equal keys. `differences` are
    those that the check found, or in a dry run the keys that would be kept. Raises ValueError
    if both stores are the same.
    """

    def __init__(
        self,
        source: Store,
        target: Store,
        *,
        prefix: str = "",
        overwrite: bool = False,
        catch_up: bool = False,
        dry_run: bool = False,
        on_progress: Callable[[], object] = lambda: None,
    ) -> None:
        if source is target:
            raise ValueError("expected two stores, got the same one as source and target")
        self._source = source
        self._target = target
        self._overwrite = overwrite
        self._catch_up = catch_up
        self._dry_run = dry_run
        self._on_progress = on_progress
        self._groups = Groups(prefix)
        self._known = Known()
        self._would_differ = Differences()
        self.tally = Tally()
        self.checked: Checked | None = None

    @property
    def equal(self) -> bool:
        """Whether the check found every key of the source in the target with the same bytes."""
        return self.checked is not None and not self.checked.differences

    @property
    def differences(self) -> Differences:
        """The differences known so far."""
        return self._would_differ if self.checked is None else self.checked.differences

    async def run(self) -> None:
        """Copy. Keys that are removed from the source before they are read are skipped.

        Raises what the stores raise; keys written so far stay.
        """
        async with aclosing(self._groups.of(self._source)) as groups:
            async for keys in groups:
                await self._copy_group(keys)
                self._on_progress()

    async def check(self) -> None:
        """Read every key again, from both stores, and compare; `checked` is the result.

        With `catch_up`, changes in the source since then are copied again. If there were any,
        all keys are compared a second time.
        """
        look = await self._look(repair=self._catch_up)
        if look.repairs:
            last = await self._look(repair=False)
            last.checked.caught_up = look.checked.caught_up
            last.checked.pending = look.checked.pending

    async def _look(self, *, repair: bool) -> Comparison:
        look = Comparison(
            self._source,
            self._target,
            groups=self._groups,
            known=self._known,
            repair=repair,
            on_progress=self._on_progress,
        )
        self.checked = look.checked
        await look.run()
        return look

    async def _copy_group(self, keys: Sequence[str]) -> None:
        values = await self._groups.values(self._source, keys)
        self.tally.corrupt += sum(map(_is_corrupt, values.values()))
        changes: list[Change] = []
        for key, there in await self._groups.read(self._target, list(values)):
            changes += self._meets(key, values[key], there)
        if not self._dry_run:
            await self._put(changes, values)

    def _meets(self, key: str, data: bytes, there: Lookup) -> list[Change]:
        """The change to make, or none if the key is kept, which is counted."""
        tally = self.tally
        if isinstance(there, WrongType):
            tally.seen += 1
            tally.foreign += 1
            self._would_differ.add(Difference.FOREIGN, key)
        elif there == data:
            tally.seen += 1
            tally.equal += 1
            self._known.add(key, data)
        elif there is not None and not self._overwrite:
            tally.seen += 1
            tally.left += 1
            self._would_differ.add(Difference.OTHER, key)
        else:
            change = Change(key, there, {key: data})
            if self._dry_run:
                self._made(change, data)
            return [change]
        return []

    def _made(self, change: Change, data: bytes) -> None:
        self._known.add(change.guard, data)
        self.tally.seen += 1
        self.tally.size += len(data)
        if change.expected is None:
            self.tally.copied += 1
        else:
            self.tally.replaced += 1

    async def _put(self, changes: list[Change], values: Mapping[str, bytes]) -> None:
        while changes:
            again: list[Change] = []
            failed: KVSError | None = None
            for change, outcome in zip(changes, await self._target.commit(changes), strict=True):
                key, data = change.guard, values[change.guard]
                if outcome is None or isinstance(outcome, NotReplicated):
                    self._made(change, data)
                    self.tally.pending += outcome is not None
                elif isinstance(outcome, Conflict):  # lost the race with another writer
                    again += self._meets(key, data, outcome.current)
                elif isinstance(outcome, WrongType):
                    self._meets(key, data, outcome)
                else:
                    failed = failed or outcome
            if failed is not None:
                raise failed
            changes = again


async def copy(
    source: Store,
    target: Store,
    *,
    prefix: str = "",
    overwrite: bool = False,
    catch_up: bool = False,
) -> Copy:
    """Copy the keys of `source` that start with `prefix` into `target`, and compare.

    Returns the job with its `tally`, `checked` and `equal`.
    """
    job = Copy(source, target, prefix=prefix, overwrite=overwrite, catch_up=catch_up)
    await job.run()
    await job.check()
    return job


def _is_corrupt(data: bytes) -> bool:
    try:
        codec.decode(data)
    except ValueError:
        return True
    return False
