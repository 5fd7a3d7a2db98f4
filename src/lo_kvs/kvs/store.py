"""Store: the contract of every store, and the methods that all of them share.

A store maps keys (`str`) to JSON values. The four stores differ only in where they keep the
bytes; each implements `read`, `commit` and `scan` of `Backend`. All methods for users are
implemented here on top of those.

Not promised: `dump`, `keys` and `scan` do not give a point-in-time snapshot. Concurrent writes
may or may not be included.
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
from lo_kvs.kvs.batching.chunks import commit_in_chunks
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

    A key is a text whose UTF-8 form has at most 65,536 bytes and that does not start with
    `__lokvs:`. Every method raises `InvalidKey` for other keys, and `InvalidArgument` if another
    argument has the wrong type. A value that is not JSON raises `NotJSON` before anything is
    written. Returned values belong to the caller.

    Calls with many keys let other tasks run every few milliseconds.

    Every method can also raise `Refused` if the store refuses the call, and `Unavailable` if it
    cannot be reached: in both cases nothing was written. `OutcomeUnknown` means that a change was
    sent and there was no reply by the deadline. After `aclose`, methods raise `StoreClosed`.
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
        """The value at `key`, or `None` if it is absent: `await store[key]`."""
        return await self.get(key)

    def _instead_of(self, operation: str, call: str) -> str:
        return f"{type(self).__name__} has no `{operation}`: use `{call}`"

    async def get(self, key: str, default: Any = None) -> Any:
        """The value at `key`, or `default` if it is absent.

        A stored `None` is a value. Raises `CorruptValue` if the stored bytes are not JSON, and
        `WrongType` if the key is not a string in Redis.
        """
        (data,) = await self.read((key,))
        if data is None:
            return default
        return decode(key, data) if len(data) < PIECE_BYTES else await decode_in_turns(key, data)

    async def set(self, key: str, value: Json) -> None:
        """Set `key` to `value` atomically, overwriting any old value. Refreshes the TTL, if any."""
        await self._put([(check_key(key), encode(key, value))])

    async def multiget(self, keys: Iterable[str], default: Any = None) -> list[Any]:
        """The values of many keys, in their order; `default` for absent ones.

        Each value is read atomically, but not all at the same moment. Raises like `get`, for the
        first key or chunk that fails. Keys are read in chunks of 500; the failed attempts of all
        chunks together are limited to the deadline of one call.
        """
        wanted = listed(keys, "keys")
        found = await self._read_in_chunks(wanted)
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
        """Set many values. Each key changes atomically, but not all at the same moment.

        All values are encoded before the first is written; do not change them before it returns.
        If some writes fail, the others are still made, and the first error is raised.
        """
        texts: list[tuple[str, bytes]] = []
        turns = Turns()
        for key, value in _own(items).items():
            if turns.due():
                await turns.pause()
            texts.append((key, encode(key, value)))
        await self._put(texts)

    async def exists(self, key: str) -> bool:
        """Whether `key` has a value; a stored `None` is a value."""
        (data,) = await self.read((key,))
        return data is not None

    async def remove(self, key: str) -> bool:
        """Remove `key` and its value. Returns whether it existed."""
        deadline = self.new_deadline()
        (data,) = await self.read((key,))
        while data is not None:
            change = Change(key, data, {key: None})
            (outcome,) = await self.commit([change], deadline=deadline.for_step())
            if not isinstance(outcome, Conflict):
                _raise_first([outcome])
                return True
            data = outcome.current
            deadline.conflict()
        return False

    async def update(self, key: str, change: Callable[[Any], Any]) -> Any:
        """Replace the value at `key` by `change(value)`, atomically for this key.

        `change` may run again if another writer was faster, so it must have no side effects. It
        gets `None` if the key is absent, otherwise its own copy of the value. If it raises, the
        exception is raised here and nothing is written for it. Updates of one key that are
        queued on one event loop are made in order and written together.

        Returns the value that was written. Raises `NotJSON` before anything is written,
        `Unavailable` if nothing was written, `OutcomeUnknown` if the outcome is not known.
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
        """The keys that start with `prefix`, each once, in no particular order.

        Failed attempts of all steps of the listing are limited as in `multiget`.
        """
        return await self._listed(prefix)

    async def dump(self, filename: str | Path | None = None) -> dict[str, Json]:
        """All keys with their values as a dict; also written to a JSON file if `filename` is given.

        For debugging and backups: it is not a point-in-time snapshot, and it keeps everything in
        memory. A value that is not valid JSON is skipped, with a warning in the log. The file is
        one JSON object with a line per key and the values exactly as stored. It is written after
        everything was read, so not at all if reading fails. A new file is readable by its user
        only; a link in its place is replaced, not followed. Failed attempts are limited as in
        `multiget`.
        """
        path = None if filename is None else _path_of(filename)
        everything: dict[str, Json] = {}
        lines: list[bytes] = []
        budget, turns = self.retry_budget(), Turns()
        keys = await self._listed(budget=budget)
        found = await self._read_in_chunks(keys, budget)
        for key, data in zip(keys, found, strict=True):
            if turns.due():
                await turns.pause()
            if data is None:  # it was removed after the listing
                continue
            try:
                everything[key] = await decode_in_turns(key, data, turns)
            except CorruptValue as error:
                logger.warning("skipped in the dump: %s", error)
            else:
                lines.append(codec.encode(key) + b": " + data)
        if path is not None:
            await asyncio.to_thread(_write_object, path, lines)
        return everything

    async def load(self, filename: str | Path) -> int:
        """Restore what `dump` wrote to `filename`; other keys are not changed.

        Returns the number of keys. Raises `NotJSON` if the file is not one JSON object, and
        `InvalidKey` if it contains an invalid key; then nothing is written. Values that the codec
        reads but does not write (NaN in old data) are restored.
        """
        path = _path_of(filename)
        turns = Turns()
        try:
            items = await value_in_turns(await asyncio.to_thread(path.read_bytes), turns)
        except ValueError as error:
            raise NotJSON("$", f"{filename} is not valid JSON: {error}") from None
        if not isinstance(items, dict):
            found = type(items).__name__
            raise NotJSON("$", f"expected an object of keys and values in {filename}, got {found}")
        texts: list[tuple[str, bytes]] = []
        for key, value in items.items():
            if turns.due():
                await turns.pause()
            texts.append((key, encode_old(value)))
            items[key] = None  # free the value now: freeing all at once blocks the event loop
        await self._put(texts)
        return len(texts)

    async def clear(self, *, everything: bool = False) -> None:
        """Remove every key of this store, each atomically, but not all at the same moment.

        A key that is set while it runs may remain. A store on Redis without a `prefix` cannot
        distinguish its keys from those of other programs, so it raises `ClearRefused` unless
        `everything=True`. Raises the first error; the keys removed so far stay removed, and
        `clear` may be called again.
        """
        await self._put([(key, None) for key in await self._listed()])

    async def _listed(self, prefix: str = "", budget: RetryBudget | None = None) -> list[str]:
        """The keys that start with `prefix`."""
        keys: list[str] = []
        turns = Turns()  # a store in memory lists its keys without ever waiting
        async for key in self.scan(prefix, budget=budget):
            keys.append(key)
            if turns.due():
                await turns.pause()
        return keys

    async def _read_in_chunks(
        self, keys: Sequence[str], budget: RetryBudget | None = None
    ) -> list[bytes | None]:
        """`read` for any number of keys, in chunks; raises for the first chunk that fails."""
        if budget is None:
            if len(keys) <= GROUP_KEYS_MAX:  # a single chunk needs no budget
                return await self.read(keys)
            budget = self.retry_budget()
        found: list[bytes | None] = []
        turns = Turns()
        for start in range(0, len(keys), GROUP_KEYS_MAX):
            if turns.due():
                await turns.pause()
            with budget.step(self.failed_attempts) as deadline:
                found += await self.read(keys[start : start + GROUP_KEYS_MAX], deadline=deadline)
        return found

    async def _put(
        self, texts: Sequence[tuple[str, bytes | None]], *, deadline: float | None = None
    ) -> None:
        """Set each text unconditionally; `None` removes the key. Raises the first error."""
        if len(texts) <= GROUP_KEYS_MAX:
            outcomes = [await self.commit(_changes(texts), deadline=deadline)]
        else:
            turns = Turns()
            for key, _ in texts:  # check all keys first, so that an invalid one prevents any write
                check_key(key)
                if turns.due():
                    await turns.pause()
            chunks = (
                _changes(texts[start : start + GROUP_KEYS_MAX])
                for start in range(0, len(texts), GROUP_KEYS_MAX)
            )
            outcomes = await commit_in_chunks(self, chunks, deadline)
        for chunk in outcomes:
            if any(chunk):
                _raise_first(chunk)


def _own(items: Mapping[str, Json]) -> dict[str, Json]:
    """A copy, because other tasks run meanwhile and could change the mapping."""
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
    """Write one JSON object line by line: building one large text would block the event loop."""
    with replaced(path, PRIVATE) as file:
        file.write(b"{\n")
        for at, line in enumerate(lines):
            file.write(b",\n" if at else b"")
            file.write(line)
        file.write(b"\n}\n")
