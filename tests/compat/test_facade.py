"""`learning_observer`: other names of modules of `lo_kvs`, and never a second copy of one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

import learning_observer.kvs
import learning_observer.prestartup
import learning_observer.redis_connection
import learning_observer.settings
import learning_observer.stream_analytics.fields
import learning_observer.stream_analytics.helpers
import lo_kvs
import lo_kvs.kvs
import lo_kvs.prestartup
import lo_kvs.redis_connection
import lo_kvs.settings
import lo_kvs.stream_analytics.fields
import lo_kvs.stream_analytics.helpers
from lo_kvs import host
from lo_kvs.kvs import InMemoryKVS, KVSRouter
from lo_kvs.stream_analytics.limits import Limits

PAIRS: list[tuple[ModuleType, ModuleType]] = [
    (learning_observer.kvs, lo_kvs.kvs),
    (learning_observer.prestartup, lo_kvs.prestartup),
    (learning_observer.redis_connection, lo_kvs.redis_connection),
    (learning_observer.settings, lo_kvs.settings),
    (learning_observer.stream_analytics.fields, lo_kvs.stream_analytics.fields),
    (learning_observer.stream_analytics.helpers, lo_kvs.stream_analytics.helpers),
]
every_module = pytest.mark.parametrize(
    ("facade", "ours"), PAIRS, ids=[facade.__name__ for facade, _ in PAIRS]
)

#: The names that callers use, from the specification.
NAMES = {
    "kvs": "KVS KVSRouter InMemoryKVS EphemeralRedisKVS PersistentRedisKVS FilesystemKVS KVS_MAP "
    "MissingKVSParameters kvs_startup_check",
    "stream_analytics.helpers": "fully_qualified_function_name make_key make_key_from_json "
    "kvs_pipeline student_event_reducer KeyStateType KeyField EventField Scope",
    "stream_analytics.fields": "KeyStateType KeyField EventField Scope ScopeFieldError",
    "redis_connection": "connect connection keys get mget set delete",
    "prestartup": "StartupCheck register_startup_check register_init_function "
    "startup_checks_and_init",
    "settings": "load_settings settings",
}


@every_module
def test_names_are_those_of_lo_kvs(facade: ModuleType, ours: ModuleType) -> None:
    for name in NAMES[facade.__name__.partition(".")[2]].split():
        assert getattr(facade, name) is getattr(ours, name)
        assert name in dir(facade)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = facade.nothing


@every_module
def test_a_module_is_known_as_itself(facade: ModuleType, ours: ModuleType) -> None:
    assert facade.__name__.startswith("learning_observer.")
    assert str(facade.__file__).endswith(facade.__name__.replace(".", "/") + ".py")
    assert facade.__doc__ is not None
    assert f"`{ours.__name__}`" in facade.__doc__
    # What the file imports for itself does not stand among the names.
    assert [name for name in vars(facade) if not name.startswith("__")] == []


@every_module
def test_whoever_sets_or_deletes_a_name_does_so_in_both(
    facade: ModuleType, ours: ModuleType
) -> None:
    with mock.patch.object(facade, "new_name", 1, create=True):
        assert ours.new_name == 1
    assert not hasattr(ours, "new_name")
    with mock.patch.object(ours, "new_name", 2, create=True):
        assert facade.new_name == 2
    assert not hasattr(facade, "new_name")


def test_star_imports_what_lo_kvs_exports() -> None:
    found: dict[str, Any] = {}
    exec("from learning_observer.kvs import *", found)
    assert found.keys() - {"__builtins__"} == set(lo_kvs.kvs.__all__)


def test_modules_are_not_packages() -> None:
    for name in ("kvs.errors", "settings.shown", "redis_connection.tls"):
        with pytest.raises(ModuleNotFoundError, match="is not a package"):
            __import__(f"learning_observer.{name}")


@lo_kvs.student_event_reducer(null_state=0, module_override="facade", qualname_override="count")
async def count(event: Any, state: Any) -> Any:
    return state + 1, False


def in_a_store_of(module: ModuleType) -> dict[str, Any]:
    """What reducers write while the `KVS` of this module is another router."""
    store = InMemoryKVS()

    async def events() -> Any:
        process: Any = await count({"auth": {"safe_user_id": "s1"}})
        await process({"client": {"event": "x"}})
        return await store.dump()

    with mock.patch.object(module, "KVS", KVSRouter(store)) as router:
        assert learning_observer.kvs.KVS is lo_kvs.kvs.KVS is lo_kvs.KVS is router
        return dict(asyncio.run(events()))


@pytest.mark.parametrize("module", [learning_observer.kvs, lo_kvs.kvs, lo_kvs])
def test_a_router_that_is_put_in_place_counts_everywhere(module: ModuleType) -> None:
    before = lo_kvs.kvs.KVS
    assert in_a_store_of(module) == {"Internal,facade.count,STUDENT:s1": 1}
    assert lo_kvs.KVS is learning_observer.kvs.KVS is lo_kvs.kvs.KVS is before
    assert "KVS" not in vars(lo_kvs)


@pytest.fixture
def kept_settings() -> Iterator[None]:
    before = lo_kvs.settings.settings
    yield
    lo_kvs.settings.settings = before


@pytest.mark.usefixtures("kept_settings")
@pytest.mark.parametrize("module", [learning_observer.settings, lo_kvs.settings])
def test_settings_that_are_put_in_place_count_everywhere(module: Any) -> None:
    module.settings = {"reducers": {"waiting_events": 77}}
    assert learning_observer.settings.settings is lo_kvs.settings.settings is module.settings
    assert host.settings() is module.settings
    assert Limits.from_settings().waiting_events == 77
    learning_observer.settings.load_settings({"reducers": {"waiting_events": 78}})
    assert Limits.from_settings().waiting_events == 78
    module.settings = None
    assert host.settings() == {}


def test_next_to_the_learning_observer_it_says_what_to_uninstall(tmp_path: Path) -> None:
    """Here lo-kvs is installed from source, so the files of `learning_observer` are its own."""
    about = tmp_path / "learning_observer-1.2.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: learning-observer\nVersion: 1.2.3\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import lo_kvs.kvs\nimport learning_observer.kvs"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ImportError: The Learning Observer 1.2.3 is installed here too")
    assert "`pip uninstall lo-kvs`" in said
    assert "`pip install lo-kvs`" in said


@every_module
def test_packages_that_are_too_old_are_reported(
    facade: ModuleType, ours: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "redis.py").write_text("__version__ = '5.0.1'\n")
    needs_redis = ours.__name__ not in {"lo_kvs.settings", "lo_kvs.prestartup"}
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from lo_kvs.prestartup import StartupCheck
try:
    import {facade.__name__}
except StartupCheck as fault:
    print(fault)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("redis 5.0.1 is too old") == needs_redis


LOAD_ALL = """
import importlib, json, pkgutil, sys

OPTIONAL = {"pmss", "testcontainers", "docker", "uvloop", "matplotlib"}

import learning_observer, lo_kvs
for package in (learning_observer, lo_kvs):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] not in OPTIONAL:
                raise
for name in lo_kvs.__all__:
    getattr(lo_kvs, name)
print(json.dumps({
    name: [str(getattr(module.__spec__, "origin", None)), str(getattr(module, "__file__", None))]
    for name, module in sys.modules.items()
    if name.partition(".")[0] in ("learning_observer", "lo_kvs")
}))
"""


def test_no_file_is_loaded_under_two_names() -> None:
    """Two copies of a class of errors would be caught by two different `except`."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD_ALL],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, list[str]] = json.loads(done.stdout)
    assert len(loaded) > 150
    assert {"learning_observer.kvs", "lo_kvs.kvs.codec._c", "lo_kvs.lua"} <= loaded.keys()
    for which in (0, 1):
        places = [each[which] for each in loaded.values()]
        assert len(places) == len(set(places)), sorted(
            place for place in places if places.count(place) > 1
        )
