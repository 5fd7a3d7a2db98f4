"""Store: the contract of every store, and what all of them share.

A store maps keys (`str`) to JSON values. The four stores differ in where the bytes lie and
in nothing else; each brings the `Primitives`: `read`, `commit`, `scan`. Everything that people
call is written here on top of those.

What is not promised: `dump`, `keys` and `scan` are no snapshots. A key that is written or
removed while they run may be in the answer or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from learning_observer.kvs import codec
from learning_observer.kvs.changes import Change, Conflict, Guard, Outcome, check_key
from learning_observer.kvs.codec import Json
from learning_observer.kvs.errors import CorruptValue, KVSError, NotJSON
from learning_observer.kvs.own_loop import of_this_loop
from learning_observer.kvs.parts import commit_in_parts
from learning_observer.kvs.patience import RetryBudget
from learning_observer.kvs.primitives import GROUP_KEYS_MAX, Primitives
from learning_observer.kvs.texts import decode, encode, encode_old
from learning_observer.kvs.updates import Updates

logger = logging.getLogger(__name__)


class Store(Primitives):
    """Keys and JSON values, asynchronously. All stores behave alike.

    Keys are any text that has a UTF-8 form and does not begin with `__lokvs:`; anything
    else raises `InvalidKey`, in every method. A value that is no JSON raises `NotJSON`
    before anything is written. Values that are returned belong to the caller.

    Besides what its own text says, each method raises `Refused` where the store says no, and
    `Unavailable` where it could not be reached: nothing of that was written. `OutcomeUnknown` is
    raised where a change was sent, and no answer came by the deadline; `StoreClosed` after
    `aclose`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._updates: dict[asyncio.AbstractEventLoop, Updates] = {}

    async def __getitem__(self, key: str) -> Any:
        """The value at `key`, or `None` where it is absent: `await store[key]`."""
        return await self.get(key)

    async def get(self, key: str, default: Any = None) -> Any:
        """The value at `key`, or `default` where it is absent.

        A stored `None` is a value. Raises `CorruptValue` where something other than JSON
        is stored, and `WrongType` where another program keeps something else there.
        """
        (data,) = await self.read((key,))
        return default if data is None else decode(key, data)

    async def set(self, key: str, value: Json) -> None:
        """Put `value` under `key`, whatever stood there, atomically. Refreshes the TTL, if any."""
        await self._put({key: encode(key, value)})

    async def multiget(self, keys: Iterable[str], default: Any = None) -> list[Any]:
        """The values of many keys, in their order; `default` where one is absent.

        Each value is read atomically; the values of different keys need not be of one
        moment. Raises like `get`, for the first key or the first part that fails: keys are read
        500 at a time, and what is tried in vain in all of these together is given up after as
        long as one call is tried.
        """
        wanted = list(keys)
        found = await self._read_in_parts(wanted)
        return [
            default if data is None else decode(key, data)
            for key, data in zip(wanted, found, strict=True)
        ]

    async def multiset(self, items: Mapping[str, Json]) -> None:
        """Put many values. Each key changes atomically, but not all at one moment.

        Every value is encoded before the first is written. Where writing some fails, the
        others are written all the same, and the first error is raised.
        """
        await self._put({key: encode(key, value) for key, value in items.items()})

    async def exists(self, key: str) -> bool:
        """Whether there is a value at `key`; a stored `None` is one."""
        (data,) = await self.read((key,))
        return data is not None

    async def remove(self, key: str) -> bool:
        """Remove `key` and its value. Returns whether there was one."""
        patience = self.patience()
        (data,) = await self.read((key,))
        while data is not None:
            change = Change(key, data, {key: None})
            (outcome,) = await self.commit([change], deadline=patience.deadline())
            if not isinstance(outcome, Conflict):
                _raise_first([outcome])
                return True
            data = outcome.current
            patience.conflict()
        return False

    async def update(self, key: str, change: Callable[[Json], Json]) -> Json:
        """Replace the value at `key` by `change(value)`, atomically for this key.

        `change` may run again when another writer was faster, so it must have no side
        effects. It gets `None` where the key is absent, and a value of its own otherwise.
        What it raises is raised here, and nothing is written for it. Updates of one key that
        wait at the same time on one event loop are made in their order, and written once.

        Returns the value as it was written. Raises `NotJSON` before anything is written,
        `Unavailable` when nothing was written, `OutcomeUnknown` when nobody can tell.
        """
        self._check_open()
        updates = of_this_loop(self._updates, lambda: Updates(self))
        return await updates.submit(check_key(key), change)

    async def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, each once, in no order; empty where there is none.

        What is tried in vain in all steps of the listing is given up as in `multiget`.
        """
        return [key async for key in self.scan(prefix)]

    async def dump(self, filename: str | Path | None = None) -> dict[str, Json]:
        """Every key with its value, as a dict, and as a JSON file where one is named.

        For debugging and backups: it is no snapshot, and it holds everything in memory.
        A value that is no JSON is left out, with a warning in the log that names its key.
        The file is one object, a line for each key, with each value's text as it is stored; it
        is written once everything has been read, so not at all where reading fails. What is
        tried in vain is given up as in `multiget`.
        """
        everything: dict[str, Json] = {}
        lines: list[bytes] = []
        budget = self.retry_budget()
        keys = [key async for key in self.scan(budget=budget)]
        found = await self._read_in_parts(keys, budget)
        for key, data in zip(keys, found, strict=True):
            if data is None:  # removed since it was listed
                continue
            try:
                everything[key] = decode(key, data)
            except CorruptValue as error:
                logger.warning("left out of the dump: %s", error)
            else:
                lines.append(codec.encode(key) + b": " + data)
        if filename is not None:
            text = b"{\n" + b",\n".join(lines) + b"\n}\n"
            await asyncio.to_thread(Path(filename).write_bytes, text)
        return everything

    async def load(self, filename: str | Path) -> int:
        """Put back what `dump` wrote into `filename`; other keys stay as they are.

        Returns the number of keys. Raises `NotJSON` where the file holds anything other
        than one JSON object, `InvalidKey` where it names an impossible key; nothing is
        written then. What the codec reads but refuses to write (NaN in old data) is put back.
        """
        try:
            items = codec.decode(await asyncio.to_thread(Path(filename).read_bytes))
        except ValueError as error:
            raise NotJSON("$", f"{filename} is no JSON: {error}") from None
        if not isinstance(items, dict):
            found = type(items).__name__
            raise NotJSON("$", f"expected an object of keys and values in {filename}, got {found}")
        await self._put({key: encode_old(value) for key, value in items.items()})
        return len(items)

    async def clear(self, *, everything: bool = False) -> None:
        """Remove every key of this store, each atomically, but not all at one moment.

        A key that is put while it runs may stay. A store on Redis without a `prefix` cannot
        tell its keys from those of other programs and raises `ClearRefused`, unless it is told
        `everything=True`. Raises the first error; what was removed by then is gone, and `clear`
        may be called again.
        """
        await self._put(dict.fromkeys([key async for key in self.scan()]))

    async def _read_in_parts(
        self, keys: Sequence[str], budget: RetryBudget | None = None
    ) -> list[bytes | None]:
        """`read`, for any number of keys; raises for the first part that fails."""
        if budget is None:
            if len(keys) <= GROUP_KEYS_MAX:  # one part has nothing to share
                return await self.read(keys)
            budget = self.retry_budget()
        found: list[bytes | None] = []
        for start in range(0, len(keys), GROUP_KEYS_MAX):
            with budget.part(self.in_vain) as deadline:
                found += await self.read(keys[start : start + GROUP_KEYS_MAX], deadline=deadline)
        return found

    async def _put(
        self, items: Mapping[str, bytes | None], *, deadline: float | None = None
    ) -> None:
        changes = [Change(key, Guard.ANY, {key: data}) for key, data in items.items()]
        for change in changes:  # all keys first, so that a bad one stops before any write
            check_key(change.guard)
        if len(changes) <= GROUP_KEYS_MAX:
            outcomes = await self.commit(changes, deadline=deadline)
        else:
            outcomes = await commit_in_parts(self, changes, GROUP_KEYS_MAX, deadline)
        _raise_first(outcomes)


def _raise_first(outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, KVSError):
            raise outcome
