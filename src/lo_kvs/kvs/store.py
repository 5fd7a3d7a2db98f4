"""Store: the contract of every store, and what all of them share.

A store maps keys (`str`) to JSON values. The four stores differ in where the bytes lie and
in nothing else; each brings the `Backend`: `read`, `commit`, `scan`. Everything that people
call is written here on top of those.

What is not promised: `dump`, `keys` and `scan` are no snapshots. A key that is written or
removed while they run may be in the answer or not.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lo_kvs.kvs import codec
from lo_kvs.kvs.backend import GROUP_KEYS_MAX, Backend
from lo_kvs.kvs.batching.chunks import commit_in_parts
from lo_kvs.kvs.batching.deadlines import RetryBudget
from lo_kvs.kvs.batching.turns import Turns
from lo_kvs.kvs.changes import Change, Conflict, Guard, Outcome, check_key, listed
from lo_kvs.kvs.codec import Json
from lo_kvs.kvs.codec.values import (
    PIECE_BYTES,
    decode,
    decode_in_turns,
    encode,
    encode_old,
    value_in_turns,
)
from lo_kvs.kvs.errors import CorruptValue, InvalidArgument, KVSError, NotJSON, shorten
from lo_kvs.kvs.loop_bound import of_this_loop
from lo_kvs.kvs.operators import NoOperators
from lo_kvs.kvs.updates import Updates
from lo_kvs.output_files import PRIVATE, replaced

logger = logging.getLogger(__name__)


class Store(Backend, NoOperators):
    """Keys and JSON values, asynchronously. All stores behave alike.

    A key is any text that has a UTF-8 form of 65,536 bytes at most and does not start with
    `__lokvs:`; anything else raises `InvalidKey`, in every method, and any other argument of a
    wrong type raises `InvalidArgument`. A value that is not JSON raises `NotJSON` before anything
    is written. Values that are returned belong to the caller.

    Calls of many keys let the event loop turn every few milliseconds.

    Besides what its own text says, each method raises `Refused` where the store says no, and
    `Unavailable` where it could not be reached: nothing of that was written. `OutcomeUnknown` is
    raised where a change was sent, and no answer came by the deadline; `StoreClosed` after
    `aclose`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._updates: dict[asyncio.AbstractEventLoop, Updates] = {}

    def __repr__(self) -> str:
        """The kind of store, where its data is, and whether it is open; no user or password."""
        state = "closed" if getattr(self, "_closed", False) else "open"
        return f"<{' '.join(filter(None, (type(self).__name__, self._place())))}, {state}>"

    def _place(self) -> str:
        """Where the data is, for `repr`; "" if a store does not say."""
        return ""

    async def __getitem__(self, key: str) -> Any:
        """The value at `key`, or `None` where it is absent: `await store[key]`."""
        return await self.get(key)

    def _instead_of(self, operation: str, call: str) -> str:
        return f"{type(self).__name__} has no `{operation}`: use `{call}`"

    async def get(self, key: str, default: Any = None) -> Any:
        """The value at `key`, or `default` where it is absent.

        A stored `None` is a value. Raises `CorruptValue` where something other than JSON
        is stored, and `WrongType` where another program keeps something else there.
        """
        (data,) = await self.read((key,))
        if data is None:
            return default
        return decode(key, data) if len(data) < PIECE_BYTES else await decode_in_turns(key, data)

    async def set(self, key: str, value: Json) -> None:
        """Put `value` under `key`, whatever stood there, atomically. Refreshes the TTL, if any."""
        await self._put([(check_key(key), encode(key, value))])

    async def multiget(self, keys: Iterable[str], default: Any = None) -> list[Any]:
        """The values of many keys, in their order; `default` where one is absent.

        Each value is read atomically; the values of different keys need not be of one
        moment. Raises like `get`, for the first key or the first part that fails: keys are read
        500 at a time, and what is tried in vain in all of these together is given up after as
        long as one call is tried.
        """
        wanted = listed(keys, "keys")
        found = await self._read_in_parts(wanted)
        if len(wanted) <= GROUP_KEYS_MAX and sum(len(data or b"") for data in found) < PIECE_BYTES:
            return [
                default if data is None else decode(key, data)
                for key, data in zip(wanted, found, strict=True)
            ]
        values: list[Any] = []
        turns = Turns()
        for key, data in zip(wanted, found, strict=True):
            if turns.due():
                await turns.pause()
            values.append(default if data is None else await decode_in_turns(key, data, turns))
        return values

    async def multiset(self, items: Mapping[str, Json]) -> None:
        """Put many values. Each key changes atomically, but not all at one moment.

        Every value is encoded before the first is written; do not change the values before it
        returns. Where writing some fails, the others are written all the same, and the first
        error is raised.
        """
        texts: list[tuple[str, bytes]] = []
        turns = Turns()
        for key, value in _own(items).items():
            if turns.due():
                await turns.pause()
            texts.append((key, encode(key, value)))
        await self._put(texts)

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

    async def update(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace the value at `key` by `change(value)`, atomically for this key.

        `change` may run again when another writer was faster, so it must have no side
        effects. It gets `None` where the key is absent, and a value of its own otherwise.
        What it raises is raised here, and nothing is written for it. Updates of one key that
        wait at the same time on one event loop are made in their order, and written once.

        Returns the value as it was written. Raises `NotJSON` before anything is written,
        `Unavailable` when nothing was written, `OutcomeUnknown` when nobody can tell.
        """
        self._check_open()
        if not callable(change):
            raise InvalidArgument(
                "`change` must be a function that takes the value and returns the new one, "
                f"got {type(change).__name__}"
            )
        updates = of_this_loop(self._updates, lambda: Updates(self))
        return await updates.submit(check_key(key), change)

    async def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, each once, in no order; empty where there is none.

        What is tried in vain in all steps of the listing is given up as in `multiget`.
        """
        return await self._listed(prefix)

    async def dump(self, filename: str | Path | None = None) -> dict[str, Json]:
        """Every key with its value, as a dict, and as a JSON file where one is named.

        For debugging and backups: it is no snapshot, and it holds everything in memory.
        A value that is no JSON is left out, with a warning in the log that names its key.
        The file is one object, a line for each key, with each value's text as it is stored; it
        is written once everything has been read, so not at all where reading fails. A new file
        is readable for its user only, and a link in its place is replaced, not followed. What
        is tried in vain is given up as in `multiget`.
        """
        path = None if filename is None else _path_of(filename)
        everything: dict[str, Json] = {}
        lines: list[bytes] = []
        budget, turns = self.retry_budget(), Turns()
        keys = await self._listed(budget=budget)
        found = await self._read_in_parts(keys, budget)
        for key, data in zip(keys, found, strict=True):
            if turns.due():
                await turns.pause()
            if data is None:  # removed since it was listed
                continue
            try:
                everything[key] = await decode_in_turns(key, data, turns)
            except CorruptValue as error:
                logger.warning("left out of the dump: %s", error)
            else:
                lines.append(codec.encode(key) + b": " + data)
        if path is not None:
            await asyncio.to_thread(_write_object, path, lines)
        return everything

    async def load(self, filename: str | Path) -> int:
        """Put back what `dump` wrote into `filename`; other keys stay as they are.

        Returns the number of keys. Raises `NotJSON` where the file holds anything other
        than one JSON object, `InvalidKey` where it names an impossible key; nothing is
        written then. What the codec reads but refuses to write (NaN in old data) is put back.
        """
        path = _path_of(filename)
        turns = Turns()
        try:
            items = await value_in_turns(await asyncio.to_thread(path.read_bytes), turns)
        except ValueError as error:
            raise NotJSON("$", f"{filename} is no JSON: {error}") from None
        if not isinstance(items, dict):
            found = type(items).__name__
            raise NotJSON("$", f"expected an object of keys and values in {filename}, got {found}")
        texts: list[tuple[str, bytes]] = []
        for key, value in items.items():
            if turns.due():
                await turns.pause()
            texts.append((key, encode_old(value)))
            items[key] = None  # the value is freed now: to free them all takes long
        await self._put(texts)
        return len(texts)

    async def clear(self, *, everything: bool = False) -> None:
        """Remove every key of this store, each atomically, but not all at one moment.

        A key that is put while it runs may stay. A store on Redis without a `prefix` cannot
        tell its keys from those of other programs and raises `ClearRefused`, unless it is told
        `everything=True`. Raises the first error; what was removed by then is gone, and `clear`
        may be called again.
        """
        await self._put([(key, None) for key in await self._listed()])

    async def _listed(self, prefix: str = "", budget: RetryBudget | None = None) -> list[str]:
        """The keys that begin with `prefix`."""
        keys: list[str] = []
        turns = Turns()  # a store that has its keys at hand lists them without ever waiting
        async for key in self.scan(prefix, budget=budget):
            keys.append(key)
            if turns.due():
                await turns.pause()
        return keys

    async def _read_in_parts(
        self, keys: Sequence[str], budget: RetryBudget | None = None
    ) -> list[bytes | None]:
        """`read`, for any number of keys; raises for the first part that fails."""
        if budget is None:
            if len(keys) <= GROUP_KEYS_MAX:  # one part has nothing to share
                return await self.read(keys)
            budget = self.retry_budget()
        found: list[bytes | None] = []
        turns = Turns()
        for start in range(0, len(keys), GROUP_KEYS_MAX):
            if turns.due():
                await turns.pause()
            with budget.part(self.failed_attempts) as deadline:
                found += await self.read(keys[start : start + GROUP_KEYS_MAX], deadline=deadline)
        return found

    async def _put(
        self, texts: Sequence[tuple[str, bytes | None]], *, deadline: float | None = None
    ) -> None:
        """Put each text, whatever stood there; `None` removes the key. Raises the first error."""
        if len(texts) <= GROUP_KEYS_MAX:
            outcomes = [await self.commit(_changes(texts), deadline=deadline)]
        else:
            turns = Turns()
            for key, _ in texts:  # all keys first, so that a bad one stops before any write
                check_key(key)
                if turns.due():
                    await turns.pause()
            parts = (
                _changes(texts[start : start + GROUP_KEYS_MAX])
                for start in range(0, len(texts), GROUP_KEYS_MAX)
            )
            outcomes = await commit_in_parts(self, parts, deadline)
        for part in outcomes:
            if any(part):
                _raise_first(part)


def _own(items: Mapping[str, Json]) -> dict[str, Json]:
    """A copy: others run meanwhile, and might change a mapping that is being iterated over."""
    if type(items) is dict:
        return items.copy()
    if not isinstance(items, Mapping):
        raise InvalidArgument(
            f"`items` must be a mapping of keys to values, as a dict is, got {type(items).__name__}"
        )
    own: dict[str, Json] = {}
    for pair in listed(items.items(), "items.items()"):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InvalidArgument(f"the items() of {type(items).__name__} are not pairs")
        own[check_key(pair[0])] = pair[1]
    return own


def _changes(texts: Iterable[tuple[str, bytes | None]]) -> list[Change]:
    return [Change(key, Guard.ANY, {key: data}) for key, data in texts]


def _raise_first(outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, KVSError):
            raise outcome


def _path_of(filename: str | Path) -> Path:
    if not isinstance(filename, str | os.PathLike):
        raise InvalidArgument(f"`filename` must be a str or a Path, got {type(filename).__name__}")
    path = Path(filename)
    if "\0" in str(path):
        raise InvalidArgument(f"`filename` must have no NUL, got {shorten(str(path))}")
    return path


def _write_object(path: Path, lines: Iterable[bytes]) -> None:
    """Write one JSON object, line by line: a single large text would keep the event loop, too."""
    with replaced(path, PRIVATE) as file:
        file.write(b"{\n")
        for at, line in enumerate(lines):
            file.write(b",\n" if at else b"")
            file.write(line)
        file.write(b"\n}\n")
