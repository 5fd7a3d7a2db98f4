"""KVSRouter: creates the configured stores and returns them by name; `KVS` is the shared router."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn, Self, TypeAlias

from lo_kvs import host
from lo_kvs.kvs.checks.startup import startup_faults
from lo_kvs.kvs.configuration import (
    REDIS_TYPES,
    Entry,
    connections_named,
    entry_faults,
    read_block,
    valid_entry,
)
from lo_kvs.kvs.errors import InvalidArgument, KVSError, MissingKVSParameters, NotStarted
from lo_kvs.kvs.filesystem.store import FilesystemKVS
from lo_kvs.kvs.memory import InMemoryKVS
from lo_kvs.kvs.operators import NoOperators
from lo_kvs.kvs.redis.store import EphemeralRedisKVS, PersistentRedisKVS
from lo_kvs.kvs.store import Store
from lo_kvs.prestartup import StartupCheck, register_startup_check
from lo_kvs.redis_connection import RedisSettings, named_settings
from lo_kvs.settings.shown import label

#: The store types of a configuration.
KVS_MAP: Final[Mapping[str, type[Store]]] = {
    "stub": InMemoryKVS,
    "redis_ephemeral": EphemeralRedisKVS,
    "redis": PersistentRedisKVS,
    "filesystem": FilesystemKVS,
}

#: An item of a router: the options of an entry, a store, or a function that returns a store.
Item: TypeAlias = Mapping[str, Any] | Store | Callable[[], Store]

#: Stores that a router created, by name, each with its configuration.
Opened: TypeAlias = dict[str, tuple[Store, tuple[Entry, RedisSettings | None]]]


class NotYetAStore(NoOperators):
    """Must be called to get a store; raises a helpful error if it is used like a store."""

    def _instead_of(self, operation: str, call: str) -> str:
        return (
            f"this is not a store yet, and has no `{operation}`: call it, as in `store = KVS()` "
            f"or `store = KVS.memoization()`, then use `{call}`"
        )

    def __getitem__(self, key: object) -> NoReturn:
        raise TypeError(self._instead_of("[key]", "await store[key]"))

    def _is_of_a_store(self, name: str) -> str:
        """A hint if `name` is an attribute of stores; otherwise ''."""
        if name.startswith("_") or not hasattr(Store, name):
            return ""
        return f"; it is a method of a store: call the router first, as in `KVS().{name}(...)`"


class Constant(NotYetAStore):
    """Returns the same store each time."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def __call__(self) -> Store:
        return self.store

    def __repr__(self) -> str:
        return f"<call this to get {self.store!r}>"

    def __getattr__(self, name: str) -> NoReturn:
        hint = self._is_of_a_store(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")


class KVSRouter(NotYetAStore):
    """Owns a store for each configured name.

    `router()` is the store named `default`, `router.<name>()` is another one: the same
    object each time. A name that is not configured raises `AttributeError`.

    default  the item for the name `default`
    items    a mapping of names to items, or pairs of them

    Raises `MissingKVSParameters` with every fault of the items.
    """

    def __init__(
        self,
        default: Item | None = None,
        items: Mapping[str, Item] | Iterable[tuple[str, Item]] | None = None,
    ) -> None:
        self._items: dict[str, Callable[[], Store]] = {}
        self._default: Store | None = None  # a shortcut, if it is always the same store
        # The configuration of each store that this router created.
        self._sources: dict[str, tuple[Entry, RedisSettings | None]] = {}
        self._retired: list[Store] = []
        named = _named(items)
        if default is not None:
            named["default"] = default
        faults: list[str] = []
        for name, item in named.items():
            try:
                self.add_item(name, item)
            except MissingKVSParameters as error:
                faults += error.faults
        if faults:
            raise MissingKVSParameters(faults)

    def __call__(self) -> Store:
        """The default store. Raises `NotStarted` if there is none yet."""
        if self._default is not None:
            return self._default
        make = self._items.get("default")
        if make is None:
            raise NotStarted(
                "there is no default store yet: load the settings, then call "
                "lo_kvs.prestartup.startup_checks_and_init()"
            )
        return make()

    def __getattr__(self, name: str) -> Callable[[], Store]:
        # Only called if there is no such attribute, so entries cannot hide the router's methods.
        try:
            return self.__dict__["_items"][name]  # type: ignore[no-any-return]
        except KeyError:
            known = ", ".join(sorted(self.__dict__.get("_items", ()))) or "none yet"
            hint = self._is_of_a_store(name)
            raise AttributeError(
                f"no store is configured as {name!r}; known: {known}{hint}"
            ) from None

    def __repr__(self) -> str:
        """The names and stores; a store that a function returns is not made for this."""
        stores = ", ".join(
            f"{name}={make.store if isinstance(make, Constant) else make!r}"
            for name, make in self._items.items()
        )
        return f"<{type(self).__name__}: {stores or 'no stores; call lo_kvs.configure() first'}>"

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._items]

    def names(self) -> list[str]:
        """The names of the stores, in the order of the configuration."""
        return list(self._items)

    def add_item(self, name: str, item: Item) -> None:
        """Add or replace the store `name`.

        If its options are invalid, raises `MissingKVSParameters` and changes nothing.
        """
        if not isinstance(name, str):
            raise InvalidArgument(f"the name of a store must be str, got {type(name).__name__}")
        if isinstance(item, Store):
            self._add_made(name, Constant(item))
        elif callable(item):
            self._add_made(name, item)
        else:
            faults = list(entry_faults(name, item, is_reserved=_is_reserved))
            if faults:
                raise MissingKVSParameters(faults)
            self._add_opened(*self._open_changed([valid_entry(name, item)]))

    def remove_item(self, name: str) -> None:
        """Remove the store `name`; it is closed with the router. Raises `KeyError`."""
        self._retire(name)
        del self._items[name]
        self._note_default()

    def configure(
        self, block: object, *, check: Callable[[Sequence[Entry]], list[str]] | None = None
    ) -> None:
        """Replace all stores by those of a `kvs` block.

        An unchanged entry keeps its store and its content, unless the store was closed. If the
        entries are valid, `check` is called with them and returns further faults. Raises
        `MissingKVSParameters` with every fault of the block; then nothing changes.
        """
        entries, faults = read_block(block, is_reserved=_is_reserved)
        opened, more_faults = self._open_changed(entries)
        faults += more_faults
        if faults:  # also report connections that only invalid entries use
            faults += [line for line in _connection_faults(block) if line not in faults]
        if check is not None and not faults:
            faults = check(entries)
        self._add_opened(opened, faults)
        for name in self._items.keys() - {entry.name for entry in entries}:
            self.remove_item(name)
        self._items = {entry.name: self._items[entry.name] for entry in entries}

    async def aclose(self) -> None:
        """Close every store that this router created, and remove all stores."""
        for name in self.names():
            self.remove_item(name)
        while self._retired:
            await self._retired.pop().aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    def _open_changed(self, entries: Iterable[Entry]) -> tuple[Opened, list[str]]:
        """New stores for new and changed entries, and the faults of those that failed."""
        opened: Opened = {}
        faults: list[str] = []
        for entry in entries:
            try:
                source = (entry, _connection_of(entry))
            except StartupCheck as error:  # the same for every entry on one Redis: report it once
                faults += [line for line in str(error).splitlines() if line not in faults]
                continue
            try:
                if self._sources.get(entry.name) != source or self._items[entry.name]()._closed:
                    opened[entry.name] = _open(*source), source
            except KVSError as error:
                faults.append(f"kvs.{label(entry.name)}: {error}")
        return opened, faults

    def _add_opened(self, opened: Opened, faults: list[str]) -> None:
        if faults:
            raise MissingKVSParameters(faults)
        for name, (store, source) in opened.items():
            self._retire(name)
            self._sources[name] = source
            self._items[name] = Constant(store)
        self._note_default()

    def _add_made(self, name: str, make: Callable[[], Store]) -> None:
        if _is_reserved(name):
            raise MissingKVSParameters(
                [f"kvs.{label(name)}: this name is reserved; choose another one"]
            )
        self._retire(name)
        self._items[name] = make
        self._note_default()

    def _note_default(self) -> None:
        make = self._items.get("default")
        self._default = make.store if isinstance(make, Constant) else None

    def _retire(self, name: str) -> None:
        # The router closes only the stores that it created.
        if self._sources.pop(name, None) is not None:
            self._retired.append(self._items[name]())


def _named(items: Mapping[str, Item] | Iterable[tuple[str, Item]] | None) -> dict[str, Item]:
    try:
        return {} if items is None else dict(items)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"`items` must be a mapping of names to items, or pairs of them: {error}"
        ) from error


def _is_reserved(name: str) -> bool:
    return name.startswith("_") or hasattr(KVSRouter, name)


def _connection_of(entry: Entry) -> RedisSettings | None:
    """The Redis settings of an entry; `None` if it is not on Redis. Raises StartupCheck."""
    if entry.type not in REDIS_TYPES:
        return None
    return named_settings(entry.options.get("connection"))


def _connection_faults(block: object) -> Iterator[str]:
    """The faults of the connections that the entries of a block use."""
    for name in connections_named(block):
        try:
            named_settings(name)
        except StartupCheck as error:
            yield from str(error).splitlines()


def _open(entry: Entry, connection: RedisSettings | None) -> Store:
    of_the_router = {"connection", "require"}
    options = {name: value for name, value in entry.options.items() if name not in of_the_router}
    if entry.type == "filesystem":
        return FilesystemKVS(options.pop("path"), **options)
    if entry.type == "redis_ephemeral":
        return EphemeralRedisKVS(options.pop("expiry"), connection=connection, **options)
    if entry.type == "redis":
        return PersistentRedisKVS(connection=connection, **options)
    return InMemoryKVS()


#: The router of this process. The object never changes: startup adds the stores to it.
KVS: Final = KVSRouter()


def kvs_startup_check() -> None:
    """Configure `KVS` from `settings["kvs"]`. Raises `StartupCheck` with every fault.

    Also checks the Redis servers of the stores, which blocks for about a second at most. Problems
    are logged, and are faults for stores with `require: true`.

    Running it again applies changed settings and keeps the stores that did not change.
    """
    KVS.configure(host.settings().get("kvs"), check=startup_faults)


# Called, not used as a decorator: other implementations of this function may return `None`.
register_startup_check(kvs_startup_check)


async def clear() -> None:
    """Clear every in-memory store of `KVS`, for use between tests. Other stores are kept."""
    for name in KVS.names():
        store = getattr(KVS, name)()
        if isinstance(store, InMemoryKVS):
            await store.clear()
