"""A copy: first every key is put into the target, then both stores are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from lo_kvs.copying.comparison import Checked, Comparison, Difference, Differences
from lo_kvs.copying.groups import Groups, Known, Lookup
from lo_kvs.kvs import Change, Conflict, KVSError, NotReplicated, Store, WrongType, codec


@dataclass
class Tally:
    """What has been copied so far, in keys.

    seen      read from the source: the sum of the next five
    copied    put where the target had none
    replaced  put over other bytes, by `overwrite`
    equal     were there already, with the same bytes
    left      have other bytes in the target, and were left
    foreign   are something other than values in the target, and were left
    corrupt   of those seen, how many are no JSON
    pending   of those put, how many are not yet where the target's `wait_…` options ask for
    size      of the values that were put, in bytes
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
    """One copy of the keys of `source` that begin with `prefix` into `target`.

    overwrite    put also where the target has other bytes; else those are left
    catch_up     what the source changes meanwhile is copied once more by `check`; what
                 others change in the target is left even so
    dry_run      count only: `tally` is what would be, and nothing is written
    on_progress  called after each group of keys

    `tally` is what was done, after an error too; begin again then, and what is equal is
    passed over. `differences` are those that the check found, or, of a dry run, the keys
    that would be left. Raises ValueError where both stores are the same.
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
        """Whether the check found every key of the source in the target, with its bytes."""
        return self.checked is not None and not self.checked.differences

    @property
    def differences(self) -> Differences:
        """What differs, as far as it is known by now."""
        return self._would_differ if self.checked is None else self.checked.differences

    async def run(self) -> None:
        """Copy. Keys that are removed from the source before their turn are passed over.

        Raises what the stores raise; what was put by then stays.
        """
        async with aclosing(self._groups.of(self._source)) as groups:
            async for keys in groups:
                await self._copy_group(keys)
                self._on_progress()

    async def check(self) -> None:
        """Read every key again, from both stores, and compare; `checked` is the result.

        With `catch_up`, what the source has changed since is copied once more, and where
        there was any of it, all is compared a second time.
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
        """The change that is to be made over what is there, or none, which is counted."""
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
                elif isinstance(outcome, Conflict):  # somebody was faster
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
    """Copy the keys of `source` that begin with `prefix` into `target`, and compare.

    Returns the job: its `tally`, what was `checked`, and whether all is `equal`.
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
