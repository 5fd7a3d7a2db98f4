"""The router: which stores it creates, keeps, replaces and closes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.kvs.redis_places import closed_port

from lo_kvs import kvs, prestartup, settings
from lo_kvs.kvs import (
    KVS,
    KVS_MAP,
    EphemeralRedisKVS,
    FilesystemKVS,
    InMemoryKVS,
    KVSRouter,
    MissingKVSParameters,
    NotStarted,
    PersistentRedisKVS,
    StoreClosed,
    kvs_startup_check,
)

STUB = {"type": "stub"}


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(settings, "settings", {})
    yield
    asyncio.run(KVS.aclose())


def configure(block: object, **more: object) -> None:
    settings.settings.clear()
    # Startup looks at the servers of the stores: at none that happens to run here.
    nowhere = {"redis_host": "127.0.0.1", "redis_port": closed_port()}
    settings.settings.update({"kvs": block, "redis_connection": nowhere, **more})
    prestartup.startup_checks_and_init()


# -- before and after startup ----------------------------------------------------------------


def test_before_startup() -> None:
    with pytest.raises(NotStarted, match=r"startup_checks_and_init\(\)"):
        KVS()
    with pytest.raises(AttributeError, match="no store is configured as 'cache'; known: none yet"):
        KVS.cache()
    assert getattr(KVS, "cache", None) is None


def test_imported_at_import_time_and_used_after_startup() -> None:
    program = """
from lo_kvs.kvs import KVS
from lo_kvs import kvs, prestartup, settings
try:
    KVS()
except kvs.NotStarted as error:
    print(type(error).__mro__[2].__name__, error)
settings.load_settings({"kvs": {"default": {"type": "stub"}}})
prestartup.startup_checks_and_init()
print(KVS() is kvs.KVS(), type(KVS()).__name__)
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    before, after = ran.stdout.splitlines()
    assert before.startswith("RuntimeError there is no default store yet: load the settings, then")
    assert before.endswith("call lo_kvs.prestartup.startup_checks_and_init()")
    assert after == "True InMemoryKVS"


@pytest.mark.parametrize(
    "form",
    [
        lambda entries: entries,
        lambda entries: list(entries.items()),
        lambda entries: [list(pair) for pair in entries.items()],
        lambda entries: tuple(entries.items()),
        lambda entries: [{name: options} for name, options in entries.items()],
    ],
    ids=["mapping", "tuples", "lists", "tuple", "mappings"],
)
def test_every_form_of_the_block_creates_the_same_stores(form: Any, tmp_path: Path) -> None:
    entries = {
        "default": {"type": "filesystem", "path": str(tmp_path), "subdirs": True},
        "memoization": {"type": "stub"},
        "google_cache": {"type": "redis_ephemeral", "expiry": 30},
        "states": {"type": "redis", "prefix": "s:"},
    }
    configure(form(entries))
    made = [KVS(), KVS.memoization(), KVS.google_cache(), KVS.states()]
    assert [type(store) for store in made] == [
        FilesystemKVS,
        InMemoryKVS,
        EphemeralRedisKVS,
        PersistentRedisKVS,
    ]
    assert KVS.names() == list(entries)
    assert set(entries) <= set(dir(KVS))
    assert KVS.default() is KVS()
    assert [KVS(), KVS.memoization(), KVS.google_cache(), KVS.states()] == made


def test_types_are_those_of_the_documentation() -> None:
    assert dict(KVS_MAP) == {
        "stub": InMemoryKVS,
        "redis_ephemeral": EphemeralRedisKVS,
        "redis": PersistentRedisKVS,
        "filesystem": FilesystemKVS,
    }


def test_unknown_store_name() -> None:
    configure({"default": STUB, "cache": STUB})
    with pytest.raises(AttributeError, match="'google_cache'; known: cache, default"):
        KVS.google_cache()
    assert not hasattr(KVS, "google_cache")
    assert not hasattr(KVS, "_ipython_display_")


def test_stubs_of_different_names_are_different_stores() -> None:
    configure({"default": STUB, "other": STUB})

    async def use() -> None:
        await KVS().set("key", 1)
        assert await KVS.other()["key"] is None

    asyncio.run(use())


# -- startup again -----------------------------------------------------------------------------


def test_second_startup_keeps_the_stores_and_their_data() -> None:
    configure({"default": STUB, "cache": STUB})
    asyncio.run(KVS().set("key", 1))
    before = KVS(), KVS.cache()
    kvs_startup_check()
    configure([["cache", STUB], ["default", dict(STUB)]])
    assert (KVS(), KVS.cache()) == before
    assert asyncio.run(KVS()["key"]) == 1


def test_changed_settings_replace_only_changed_stores(tmp_path: Path) -> None:
    files = {"type": "filesystem", "path": str(tmp_path / "a")}
    configure({"default": STUB, "files": files, "gone": STUB})
    default, old, gone = KVS(), KVS.files(), KVS.gone()
    configure({"default": STUB, "files": {**files, "path": str(tmp_path / "b")}, "new": STUB})
    assert KVS() is default
    assert KVS.files() is not old
    assert KVS.names() == ["default", "files", "new"]
    with pytest.raises(AttributeError):
        KVS.gone()

    async def close() -> None:
        await old.set("key", 1)  # who holds it may go on until the router closes
        await KVS.aclose()
        for store in (default, old, gone):
            with pytest.raises(StoreClosed):
                await store.get("key")

    asyncio.run(close())


def test_another_redis_connection_replaces_the_stores_on_redis() -> None:
    block = {"default": {"type": "redis"}, "stub": STUB}
    first, second = ({"redis_port": closed_port()} for _ in range(2))
    configure(block, redis_connection=first)
    store, stub = KVS(), KVS.stub()
    configure(block, redis_connection=first)
    assert KVS() is store
    configure(block, redis_connection=second)
    assert KVS() is not store
    assert KVS.stub() is stub


def test_closed_store_is_replaced_at_the_next_startup() -> None:
    configure({"default": STUB})
    store = KVS()
    asyncio.run(store.aclose())
    assert KVS() is store
    kvs_startup_check()
    assert KVS() is not store
    asyncio.run(KVS().set("key", 1))


def test_clear_empties_the_stubs_alone(tmp_path: Path) -> None:
    configure(
        {"default": STUB, "two": STUB, "files": {"type": "filesystem", "path": str(tmp_path)}}
    )

    async def use() -> None:
        for name in KVS.names():
            await getattr(KVS, name)().set("key", name)
        await kvs.clear()
        assert [await getattr(KVS, name)()["key"] for name in KVS.names()] == [None, None, "files"]

    asyncio.run(use())


# -- routers of one's own --------------------------------------------------------------------------


def test_items_can_be_stores_options_and_what_returns_a_store(tmp_path: Path) -> None:
    own, other = InMemoryKVS(), InMemoryKVS()
    items: dict[str, Any] = {
        "own": own,
        "files": {"type": "filesystem", "path": tmp_path / "x"},
        "made": lambda: other,
    }
    for given in (items, list(items.items()), iter(items.items())):
        router = KVSRouter(default=STUB, items=given)
        assert isinstance(router(), InMemoryKVS)
        assert router() is router()
        assert router.own() is own
        assert router.made() is other
        assert isinstance(router.files(), FilesystemKVS)
        assert router.names() == ["own", "files", "made", "default"]
    assert KVSRouter(own)() is own
    assert KVSRouter(items={"default": own})() is own
    with pytest.raises(NotStarted):
        KVSRouter()()


def test_faults_of_all_items_are_reported() -> None:
    items: Any = {"a": {"type": "x"}, "b": None, "_c": InMemoryKVS(), "names": STUB, "d": 5}
    with pytest.raises(MissingKVSParameters) as found:
        KVSRouter(default={"type": "redis_ephemeral"}, items=items)
    assert [fault.partition(":")[0] for fault in found.value.faults] == [
        "kvs.a",
        "kvs.b",
        "kvs._c",
        "kvs.names",
        "kvs.d",
        "kvs.default",
    ]


def test_adding_and_removing_items() -> None:
    configure({"default": STUB})
    store = InMemoryKVS()
    KVS.add_item("extra", store)
    assert KVS.extra() is store
    made = KVS()
    KVS.add_item("default", {"type": "stub"})
    assert KVS() is made  # the same options: the same store
    KVS.add_item("default", store)
    assert KVS() is store
    with pytest.raises(MissingKVSParameters):
        KVS.add_item("default", {"type": "stub", "path": "x"})
    assert KVS() is store
    KVS.remove_item("extra")
    with pytest.raises(AttributeError):
        KVS.extra()
    with pytest.raises(KeyError):
        KVS.remove_item("extra")


def test_closing_closes_what_the_router_made_and_nothing_else() -> None:
    own = InMemoryKVS()

    async def use() -> None:
        items: dict[str, Any] = {"own": own, "made": lambda: own}
        async with KVSRouter(default=STUB, items=items) as router:
            made = router()
            removed = InMemoryKVS()
            router.add_item("removed", removed)
            router.remove_item("removed")
        with pytest.raises(StoreClosed):
            await made.get("key")
        assert await own.get("key") is None
        assert await removed.get("key") is None
        with pytest.raises(NotStarted):
            router()
        await router.aclose()

    asyncio.run(use())
