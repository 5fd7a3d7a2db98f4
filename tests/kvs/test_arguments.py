"""Invalid arguments: each raises a typed error at once, and nothing is written."""

from __future__ import annotations

import asyncio
import enum
import random
import string
from collections import UserDict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from lo_kvs.kvs import (
    Change,
    Conflict,
    FilesystemKVS,
    Guard,
    InMemoryKVS,
    InvalidArgument,
    InvalidKey,
    KVSError,
    KVSRouter,
    NotJSON,
    PersistentRedisKVS,
    Store,
)
from lo_kvs.kvs.changes import KEY_BYTES_MAX
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import ClusterServers

#: No call of this file takes a second; a call that never returns fails after so long.
LIMIT_S = 60

MakeStore = Callable[[], Store]
Use = Callable[[Store], Awaitable[object]]


@pytest.fixture(params=["stub", "filesystem", "redis", "cluster"])
def make_store(request: pytest.FixtureRequest, fast_path: Path) -> MakeStore:
    """Makes an empty store of each kind."""
    if request.param == "stub":
        return InMemoryKVS
    if request.param == "filesystem":
        return lambda: FilesystemKVS(fast_path / "store", fsync=False)
    # A prefix of its own: nothing of another test is in the store.
    prefix = "".join(random.choices(string.ascii_lowercase, k=20)) + ":"
    if request.param == "redis":
        where = RedisSettings(url=request.getfixturevalue("redis_url"))
    else:
        cluster: ClusterServers = request.getfixturevalue("cluster")
        where = RedisSettings(cluster=True, nodes=cluster.nodes)
    return lambda: PersistentRedisKVS(prefix=prefix, connection=where)


def on(make_store: MakeStore, test: Callable[[Store], Coroutine[Any, Any, None]]) -> None:
    """Run `test` with a store that has one key, and see that nothing else was written."""

    async def run() -> None:
        async with make_store() as store:
            await store.set("kept", 1)
            async with asyncio.timeout(LIMIT_S):
                await test(store)
                assert await store.dump() == {"kept": 1}
                await store.set("after", 2)
                assert await store["after"] == 2

    asyncio.run(run())


class Text(str):
    __slots__ = ()


class Name(enum.StrEnum):
    STATES = "states"


class Odd(str):
    """Behaves like no other text."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return False

    def startswith(self, *_: Any) -> bool:
        raise LookupError("nobody asks this")

    def __str__(self) -> str:
        return "other"


class Data(bytes):
    pass


class Unprintable:
    def __repr__(self) -> str:
        raise LookupError("this has no text")


# -- changes -------------------------------------------------------------------------------

NO_GUARDS = [
    "1",
    bytearray(b"1"),
    memoryview(b"1"),
    Data(b"1"),
    0,
    1,
    True,
    False,
    "",
    [],
    Guard,
    (),
]
NO_DATA = ["1", bytearray(b"1"), memoryview(b"1"), Data(b"1"), 0, True, [b"1"], {"a": 1}, Guard.ANY]
NO_PUTS = [None, [("kept", b"2")], "kept", b"2", 5, ("kept", b"2"), {"kept"}]
NO_CHANGES: list[Any] = [
    None,
    5,
    ("kept", None, {}),
    ["kept"],
    b"kept",
    {"kept": b"2"},
    [None],
    Unprintable(),
]
NO_DEADLINES = ["soon", b"1", [], True, float("nan"), Unprintable(), {}]


async def refused(use: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(InvalidArgument) as error:
        await use()
    assert isinstance(error.value, KVSError)
    assert isinstance(error.value, TypeError)


def changes_that_are_none() -> Iterator[Any]:
    for guard in NO_GUARDS:
        yield [Change("kept", guard, {"kept": b"2"})]  # type: ignore[arg-type]
        yield [Change("kept", guard, {})]  # type: ignore[arg-type]
    for data in NO_DATA:
        yield [Change("kept", b"1", {"kept": data})]  # type: ignore[dict-item]
        yield [Change("kept", Guard.ANY, {"kept": data})]  # type: ignore[dict-item]
        yield [Change("kept", Guard.ANY, {"kept": b"2", "other": data})]  # type: ignore[dict-item]
        yield [Change("a", None, {"a": b"1"}), Change("kept", Guard.ANY, {"kept": data})]  # type: ignore[dict-item]
        large: Any = memoryview(b'"' + b"x" * 100_000 + b'"') if data == b"1" else data
        yield [Change("kept", Guard.ANY, {"kept": large})]
    for puts in NO_PUTS:
        yield [Change("kept", Guard.ANY, puts)]  # type: ignore[arg-type]
    yield from NO_CHANGES


def test_change_with_a_wrong_type_is_refused(make_store: MakeStore) -> None:
    async def test(store: Store) -> None:
        for changes in changes_that_are_none():
            await refused(lambda changes=changes: store.commit(changes))  # type: ignore[misc]
            if isinstance(changes, list):
                with pytest.raises(InvalidArgument):
                    store.submit(changes[-1], print)

    on(make_store, test)


def test_deadline_and_callback_of_a_wrong_type_are_refused(make_store: MakeStore) -> None:
    async def test(store: Store) -> None:
        change = Change("kept", b"1", {"kept": b"2"})
        for deadline in NO_DEADLINES:
            await refused(lambda deadline=deadline: store.commit([change], deadline=deadline))  # type: ignore[misc]
            await refused(lambda deadline=deadline: store.read(["kept"], deadline=deadline))  # type: ignore[misc]
            with pytest.raises(InvalidArgument):
                store.submit(change, print, deadline)  # type: ignore[arg-type]
        for done in (None, "print", 5):
            with pytest.raises(InvalidArgument):
                store.submit(change, done)  # type: ignore[arg-type]

    on(make_store, test)


def test_error_names_the_place() -> None:
    async def test(store: Store) -> None:
        with pytest.raises(InvalidArgument, match=r"`expected` of the change of 'kept'.*got str"):
            await store.commit([Change("kept", "1", {"kept": b"2"})])  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=r"put under 'other'.*got bytearray"):
            await store.commit([Change("kept", None, {"other": bytearray(b"2")})])  # type: ignore[dict-item]

    on(InMemoryKVS, test)


def test_puts_of_any_mapping_are_copied(make_store: MakeStore) -> None:
    """What a caller does to its mapping afterwards does not reach a change that waits."""

    async def test(store: Store) -> None:
        made: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        puts: dict[str, Any] = {"{a}": b"1"}
        for at in range(20):
            done = made.set_result if at == 19 else bool
            store.submit(Change("{a}", Guard.ANY, puts), done)
            puts["{a}"] = bytearray(b"2")
            puts.clear()
            puts["{a}" if at < 18 else "{a}b"] = b"%d" % (at + 2)
        assert await made is None
        assert await store.multiget(["{a}", "{a}b"]) == [19, 20]
        for mapping in (MappingProxyType({"{a}": None, "{a}b": None}), UserDict({"kept": b"1"})):
            change = Change(next(iter(mapping)), Guard.ANY, mapping)
            assert await store.commit(iter([change])) == [None]  # type: ignore[arg-type]

    on(make_store, test)


# -- keys ----------------------------------------------------------------------------------

NO_KEYS: list[Any] = [
    None, 5, 10**5_000, 1.5, b"kept", bytearray(b"kept"), [], {}, Unprintable(), len, Guard.ANY,
    "\ud800", "__lokvs:x", Text("__lokvs:x"), Odd("__lokvs:x"), "n" * (KEY_BYTES_MAX + 1),
    "é" * (KEY_BYTES_MAX // 2 + 1), "n" * 1_000_000,
]  # fmt: skip


def uses_of(store: Store, key: Any) -> list[Callable[[], Awaitable[object]]]:
    """Every call that takes a key."""
    uses: list[Callable[[], Awaitable[object]]] = [
        lambda: store.get(key),
        lambda: store[key],
        lambda: store.set(key, 1),
        lambda: store.exists(key),
        lambda: store.remove(key),
        lambda: store.update(key, lambda _: 1),
        lambda: store.multiget(["kept", key]),
        lambda: store.read(["kept", key]),
        lambda: store.keys(key),
        lambda: store.commit([Change(key, None, {"other": b"1"})]),
    ]
    if not isinstance(key, list | dict | bytearray):  # those are in no mapping
        uses += [
            lambda: store.multiset({"other": 1, key: 1}),
            lambda: store.commit([Change("kept", Guard.ANY, {"kept": b"2", key: b"1"})]),
        ]
    return uses


def test_invalid_keys_are_refused(make_store: MakeStore) -> None:
    async def test(store: Store) -> None:
        for key in NO_KEYS:
            for use in uses_of(store, key):
                with pytest.raises(InvalidKey):
                    await use()

    on(make_store, test)


def test_keys_of_the_longest_length_are_keys(make_store: MakeStore) -> None:
    async def test(store: Store) -> None:
        longest = ["n" * KEY_BYTES_MAX, "é" * (KEY_BYTES_MAX // 2), "/" * KEY_BYTES_MAX]
        await store.multiset(dict.fromkeys(longest, 1))
        assert await store.multiget(longest) == [1, 1, 1]
        assert sorted(await store.keys()) == sorted([*longest, "kept"])
        for key in longest:
            assert await store.update(key, lambda n: n) == 1
            assert await store.remove(key) is True

    on(make_store, test)


def test_keys_of_str_subclasses_are_plain_text(make_store: MakeStore) -> None:
    async def test(store: Store) -> None:
        for key in (Name.STATES, Text("states"), Odd("states")):
            await store.set(key, 1)
            assert await store["states"] == 1
            (listed,) = await store.keys(key)
            assert type(listed) is str
            assert listed == "states"
            assert await store.exists(key) is True
            change = Change(key, b"1", {key: b"2"})
            assert await store.commit([change]) == [None]
            assert await store.update(key, lambda n: [n]) == [2]
            assert await store.multiget([key, "states"]) == [[2], [2]]
            await store.multiset({key: 3})
            assert await store.remove("states") is True
            assert await store.exists(key) is False

    on(make_store, test)


# -- values, iterables, functions ----------------------------------------------------------


def fails() -> Iterator[Any]:
    yield "kept"
    raise LookupError("the caller's own")


class OwnItems(dict[Any, Any]):
    def __init__(self, answer: Any) -> None:
        super().__init__(a=1)
        self.answer = answer

    def items(self) -> Any:
        return self.answer


async def asynchronous(value: Any) -> Any:
    return value


NOT_ITERABLE: list[Any] = [None, 5, 1.5, len, Unprintable(), Guard.ANY]
NO_MAPPINGS: list[Any] = [
    None, 5, "kept", [("kept", 2)], {"kept"}, iter([("kept", 2)]), OwnItems(None), OwnItems(5),
    OwnItems(["kept"]), OwnItems([("kept",)]), OwnItems([("kept", 2), ["other", 3]]),
]  # fmt: skip
NO_FUNCTIONS: list[Any] = [None, 5, "kept", {"a": 1}, asyncio.sleep]


def test_arguments_of_the_wrong_kind_are_refused(make_store: MakeStore, tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        for keys in NOT_ITERABLE:
            await refused(lambda keys=keys: store.multiget(keys))  # type: ignore[misc]
            await refused(lambda keys=keys: store.read(keys))  # type: ignore[misc]
        for items in NO_MAPPINGS:
            await refused(lambda items=items: store.multiset(items))  # type: ignore[misc]
        for change in NO_FUNCTIONS[:-1]:
            await refused(lambda change=change: store.update("kept", change))  # type: ignore[misc]
        names: list[Any] = [5, b"dump.json", [], Unprintable(), str(tmp_path / "a\0b")]
        for filename in names:
            await refused(lambda filename=filename: store.dump(filename))  # type: ignore[misc]
            await refused(lambda filename=filename: store.load(filename))  # type: ignore[misc]
        await refused(lambda: store.load(None))  # type: ignore[arg-type]

    on(make_store, test)


def test_callers_own_exceptions_come_through(make_store: MakeStore) -> None:
    async def test(store: Store) -> None:
        uses: list[Use] = [
            lambda s: s.multiget(fails()),
            lambda s: s.read(fails()),  # type: ignore[arg-type]
            lambda s: s.multiset(OwnItems(("a", 1) for _ in fails())),
            lambda s: s.set("a", OwnItems(("a", 1) for _ in fails())),
            lambda s: s.commit(Change(key, None, {}) for key in fails()),  # type: ignore[arg-type]
            lambda s: s.update("kept", lambda _: list(fails())),
        ]
        for use in uses:
            with pytest.raises(LookupError, match="the caller's own"):
                await use(store)

    on(make_store, test)


RAISED = [
    LookupError("x"), ValueError("x"), RecursionError("x"), MemoryError(), StopAsyncIteration(),
    OSError("x"), TimeoutError("x"), asyncio.CancelledError(), KVSError("x"),
]  # fmt: skip


def test_what_an_update_raises_is_its_callers(make_store: MakeStore) -> None:
    async def test(store: Store) -> None:
        def fail(error: BaseException) -> Any:
            raise error

        async def one(at: int) -> Any:
            """Every third one counts; the others fail in their own ways, among them."""
            if at % 3 == 0:
                return await store.update("counter", lambda n: (n or 0) + 1)
            error = RAISED[at % len(RAISED)]
            with pytest.raises(type(error)):
                await store.update("counter", lambda _: fail(error))
            return None

        counts = await asyncio.gather(*(one(at) for at in range(60)))
        assert [n for n in counts if n is not None] == list(range(1, 21))
        # A future cannot carry a StopIteration; PEP 479 makes a RuntimeError of one as well.
        with pytest.raises(RuntimeError, match="StopIteration"):
            await store.update("kept", lambda _: fail(StopIteration()))
        for value in (asynchronous, asyncio.sleep):
            with pytest.raises(NotJSON, match="await it first"):
                await store.update("kept", lambda _, value=value: value(1))  # type: ignore[misc]
        with pytest.raises(NotJSON, match="await it first"):
            await store.set("kept", asynchronous(1))  # type: ignore[arg-type]
        await store.remove("counter")

    on(make_store, test)


# -- operators -----------------------------------------------------------------------------

OPERATORS: list[tuple[Callable[[Any], object], str]] = [
    (lambda store: "kept" in store, "store.exists"),
    (lambda store: "kept" not in store, "store.exists"),
    (list, "store.keys"),
    (lambda store: [key for key in store], "store.keys"),  # noqa: C416
    (sorted, "store.keys"),
    (set, "store.keys"),
    (lambda store: (*store,), "store.keys"),
    (lambda store: store.__setitem__("kept", 2), "store.set"),
    (lambda store: store.__delitem__("kept"), "store.remove"),
]


async def run_through(store: Any) -> None:
    async for _ in store:
        pass


@pytest.mark.parametrize("routed", [False, True])
def test_operators_of_a_dict_name_the_call_to_make(make_store: MakeStore, routed: bool) -> None:
    async def test(store: Store) -> None:
        router = KVSRouter(store, {"states": store})
        routers: list[Any] = [router, router.states, router.default]
        for used in routers if routed else [store]:
            for operator, instead in OPERATORS:
                with pytest.raises(TypeError, match=f"await {instead}"):
                    operator(used)
            with pytest.raises(TypeError, match=r"store\.scan"):
                await run_through(used)
            with pytest.raises(TypeError, match="await"):
                await used  # type: ignore[misc]
            for function in (len, reversed):
                with pytest.raises(TypeError):
                    function(used)  # type: ignore[arg-type, operator, unused-ignore]
            assert used
        if routed:
            for used in routers:
                with pytest.raises(TypeError, match=r"await store\[key\]"):
                    used["kept"]
                with pytest.raises(AttributeError, match=r"KVS\(\)\.multiget"):
                    used.multiget  # noqa: B018

    on(make_store, test)


@pytest.mark.filterwarnings("ignore:coroutine 'Store.keys' was never awaited")
def test_store_is_not_a_mapping() -> None:
    store: Any = InMemoryKVS()
    assert not isinstance(store, Mapping)
    with pytest.raises(TypeError, match=r"keys\(\)"):
        dict(store)
    with pytest.raises(TypeError, match=r"keys\(\)"):
        {**store}  # noqa: B018


def test_router_refuses_items_of_the_wrong_kind() -> None:
    router = KVSRouter(InMemoryKVS())
    for items in (5, [("a",)], "ab", [5]):
        with pytest.raises(KVSError):
            KVSRouter(items=items)  # type: ignore[arg-type]
    for name in (None, 5, b"a", Unprintable()):
        with pytest.raises(KVSError):
            router.add_item(name, InMemoryKVS())  # type: ignore[arg-type]
    no_items: list[Any] = [None, 5, "stub", [], Unprintable()]
    for item in no_items:
        with pytest.raises(KVSError):
            router.add_item("a", item)
    assert router.names() == ["default"]


def test_valid_guards_still_work(make_store: MakeStore) -> None:
    async def test(store: Store) -> None:
        assert await store.commit([Change("kept", b"2", {"kept": b"3"})]) == [Conflict(b"1")]
        assert await store.commit((Change("kept", b"1", {"kept": b"1"}),)) == [None]
        assert await store.commit([Change("kept", Guard.ANY, {"kept": b"1"})]) == [None]

    on(make_store, test)
