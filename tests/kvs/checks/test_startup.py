"""The startup table: one row for each fault of the configuration, with its message."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.kvs.redis_places import closed_port

from lo_kvs import prestartup, settings
from lo_kvs.kvs import KVS, EphemeralRedisKVS, MissingKVSParameters, kvs_startup_check
from lo_kvs.prestartup import StartupCheck

STUB = {"type": "stub"}
REDIS = {"type": "redis"}


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(settings, "settings", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"")
    yield
    asyncio.run(KVS.aclose())


class Fault(NamedTuple):
    """A `kvs` block, the whole of a line that names its fault, and `redis_connection`."""

    kvs: Any
    message: str
    redis: Any = None


def cache(**options: object) -> dict[str, object]:
    return {"default": STUB, "cache": {"type": "redis_ephemeral", **options}}


def entry(options: object) -> dict[str, object]:
    return {"default": STUB, "entry": options}


SECONDS = "expected seconds, from 0.001 to 315,360,000, got"
PAIRS = "expected a mapping or a list of [name, options] pairs, got"
ON_REDIS = (
    "known are prefix, connection, require, wait_replicas, wait_aof, wait_timeout, lanes, "
    "group_changes"
)
KNOWN = "known are stub, redis_ephemeral, redis, filesystem"
FAULTS = {
    "replicas as text": Fault(
        entry({"type": "redis", "wait_replicas": "1"}),
        "kvs.entry.wait_replicas: expected a whole number, 0 or more, got '1'",
    ),
    "fewer than no replicas": Fault(
        cache(expiry=30, wait_replicas=-1),
        "kvs.cache.wait_replicas: expected a whole number, 0 or more, got -1",
    ),
    "half a replica": Fault(
        entry({"type": "redis", "wait_replicas": 0.5}),
        "kvs.entry.wait_replicas: expected a whole number, 0 or more, got 0.5",
    ),
    "replicas as flag": Fault(
        entry({"type": "redis", "wait_replicas": True}),
        "kvs.entry.wait_replicas: expected a whole number, 0 or more, got True",
    ),
    "no lane": Fault(
        entry({"type": "redis", "lanes": 0}),
        "kvs.entry.lanes: expected a whole number, 1 to 64, got 0",
    ),
    "too large groups": Fault(
        cache(expiry=30, group_changes=4001),
        "kvs.cache.group_changes: expected a whole number, 1 to 4,000, got 4001",
    ),
    "more lanes than connections": Fault(
        entry({"type": "redis", "lanes": 15}),
        "kvs.entry: 15 `lanes` need a `redis_pool_size` of 17 or more, got 16",
    ),
    "aof as number": Fault(
        entry({"type": "redis", "wait_aof": 1}), "kvs.entry.wait_aof: expected true or false, got 1"
    ),
    "endless waiting": Fault(
        entry({"type": "redis", "wait_timeout": 0}),
        "kvs.entry.wait_timeout: expected seconds, from 0.001 to 3,600, got 0",
    ),
    "waiting for files": Fault(
        entry({"type": "filesystem", "path": "x", "wait_replicas": 1}),
        "kvs.entry: filesystem has no option 'wait_replicas'; known are path, subdirs, fsync",
    ),
    "no kvs": Fault(None, "kvs: the section is missing; add it with an entry `default`"),
    "empty": Fault({}, "kvs.default: there is no default store; name one of the entries `default`"),
    "empty list": Fault([], "kvs.default: there is no default store"),
    "no default": Fault({"a": STUB}, "kvs.default: there is no default store"),
    "text": Fault("stub", f"kvs: {PAIRS} str"),
    "number": Fault(5, f"kvs: {PAIRS} int"),
    "list of text": Fault(
        [["default", STUB], "a"], "kvs[1]: expected a pair [name, options], got str"
    ),
    "triple": Fault(
        [{"default": STUB}, ["a", STUB, 1]], "kvs[1]: expected a pair [name, options], got list"
    ),
    "long mapping": Fault(
        [["default", STUB], {"a": STUB, "b": STUB}],
        "kvs[1]: expected a pair [name, options], got dict",
    ),
    "flat list": Fault([{"default": STUB}, None], "kvs[1]: expected a pair [name, options]"),
    "duplicate": Fault(
        [["default", STUB], ["default", REDIS]],
        "kvs.default: there is another entry with this name",
    ),
    "number as name": Fault({"default": STUB, 5: STUB}, "kvs: the name must be text, got 5"),
    "list as name": Fault(
        [["default", STUB], [[1], STUB]], "kvs[1]: the name must be text, got a list"
    ),
    "empty name": Fault({"default": STUB, "": STUB}, "kvs: the name must be text, got ''"),
    "reserved name": Fault(
        {"default": STUB, "add_item": STUB},
        "kvs.add_item: this name is reserved; choose another one",
    ),
    "private name": Fault({"default": STUB, "_items": STUB}, "kvs._items: this name is reserved"),
    "null entry": Fault(entry(None), "kvs.entry: expected a mapping with a `type`, got nothing"),
    "text entry": Fault(entry("stub"), "kvs.entry: expected a mapping with a `type`, got str"),
    "list entry": Fault(entry([STUB]), "kvs.entry: expected a mapping with a `type`, got list"),
    "no type": Fault(entry({"path": "x"}), f"kvs.entry: `type` is missing; {KNOWN}"),
    "null type": Fault(entry({"type": None}), f"kvs.entry: `type` is missing; {KNOWN}"),
    "unknown type": Fault(
        entry({"type": "postgres"}), f"kvs.entry: unknown type 'postgres'; {KNOWN}"
    ),
    "misspelt type": Fault(
        entry({"type": "redis_ephemral"}),
        "kvs.entry: unknown type 'redis_ephemral'; did you mean redis_ephemeral?",
    ),
    "list as type": Fault(entry({"type": ["stub"]}), "kvs.entry: unknown type a list"),
    "class as type": Fault(entry({"type": "FilesystemKVS"}), "unknown type 'FilesystemKVS'"),
    "no expiry": Fault(cache(), "kvs.cache: `expiry` is missing; redis_ephemeral needs it"),
    "null expiry": Fault(cache(expiry=None), f"kvs.cache.expiry: {SECONDS} None"),
    "expiry 0": Fault(cache(expiry=0), f"kvs.cache.expiry: {SECONDS} 0"),
    "expiry -1": Fault(cache(expiry=-1), f"kvs.cache.expiry: {SECONDS} -1"),
    "expiry nan": Fault(cache(expiry=math.nan), f"kvs.cache.expiry: {SECONDS} nan"),
    "expiry inf": Fault(cache(expiry=math.inf), f"kvs.cache.expiry: {SECONDS} inf"),
    "expiry true": Fault(cache(expiry=True), f"kvs.cache.expiry: {SECONDS} True"),
    "expiry text": Fault(cache(expiry="30"), f"kvs.cache.expiry: {SECONDS} '30'"),
    "expiry tiny": Fault(cache(expiry=0.0001), f"kvs.cache.expiry: {SECONDS} 0.0001"),
    "expiry huge": Fault(cache(expiry=10**12), f"kvs.cache.expiry: {SECONDS} 1000000000000"),
    "expire for expiry": Fault(
        cache(expire=30, expiry=30),
        "kvs.cache: redis_ephemeral has no option 'expire'; did you mean expiry?",
    ),
    "prefix": Fault(cache(expiry=30, prefix=5), "kvs.cache.prefix: expected text, got 5"),
    "require": Fault(
        {"default": {"type": "redis", "require": "yes"}},
        "kvs.default.require: expected true or false, got 'yes'",
    ),
    "reserved prefix": Fault(
        {"default": {"type": "redis", "prefix": "__lokvs:"}},
        "kvs.default.prefix: '__lokvs:' is reserved for the store itself",
    ),
    "prefix with which the reserved one begins": Fault(
        {"default": {"type": "redis", "prefix": "_"}},
        "kvs.default.prefix: '__lokvs:' is reserved for the store itself; '_' could lead there",
    ),
    "no path": Fault(
        entry({"type": "filesystem"}), "kvs.entry: `path` is missing; filesystem needs it"
    ),
    "null path": Fault(
        entry({"type": "filesystem", "path": None}),
        "kvs.entry.path: expected the path of a folder, got None",
    ),
    "empty path": Fault(
        entry({"type": "filesystem", "path": " "}),
        "kvs.entry.path: expected the path of a folder, got ' '",
    ),
    "path is a file": Fault(
        entry({"type": "filesystem", "path": "file"}),
        "cannot hold a store: .*; `path` must name a folder that this process may write to",
    ),
    "unwritable path": Fault(
        entry({"type": "filesystem", "path": "/proc/nothing"}),
        "kvs.entry: /proc/nothing cannot hold",
    ),
    "nul in path": Fault(
        entry({"type": "filesystem", "path": "a\0b"}), "cannot hold a store: embedded null"
    ),
    "subdirs": Fault(
        entry({"type": "filesystem", "path": "x", "subdirs": "yes"}),
        "kvs.entry.subdirs: expected true or false, got 'yes'",
    ),
    "fsync": Fault(
        entry({"type": "filesystem", "path": "x", "fsync": 1}),
        "kvs.entry.fsync: expected true or false, got 1",
    ),
    "unknown option": Fault(
        entry({"type": "filesystem", "path": "x", "subdir": True}),
        "kvs.entry: filesystem has no option 'subdir'; did you mean subdirs?",
    ),
    "strange option": Fault(
        entry({"type": "redis", "zzz": 1}),
        f"kvs.entry: redis has no option 'zzz'; {ON_REDIS}",
    ),
    "option of a stub": Fault(
        entry({"type": "stub", "path": "x"}), "kvs.entry: stub has no option 'path'; it has none"
    ),
    "number as option": Fault(
        entry({"type": "redis", 5: 1}),
        f"kvs.entry: redis has no option 5; {ON_REDIS}",
    ),
    "connection no mapping": Fault(
        {"default": REDIS}, "redis_connection: expected a mapping, got str", "localhost"
    ),
    "connection option": Fault(
        {"default": REDIS},
        "redis_connection: unknown option 'redis_hots'; did you mean redis_host?",
        {"redis_hots": "localhost"},
    ),
    "option without its prefix": Fault(
        {"default": REDIS},
        "redis_connection: unknown option 'host'; did you mean redis_host?",
        {"host": "localhost"},
    ),
    "port as words": Fault(
        {"default": REDIS},
        "redis_connection: redis_port expects a whole number, "
        "got other text (not shown, it may be a secret)",
        {"redis_port": "hunter2"},
    ),
    "port 0": Fault(
        {"default": REDIS}, "redis_connection: redis_port must be over 0, got 0", {"redis_port": 0}
    ),
    "port too large": Fault(
        {"default": REDIS},
        "redis_connection: redis_port must be up to 65535, got 70000",
        {"redis_port": 70_000},
    ),
    "negative db": Fault(
        {"default": REDIS}, "redis_connection: redis_db must be 0 or more, got -1", {"redis_db": -1}
    ),
    "timeout nan": Fault(
        {"default": REDIS},
        "redis_connection: redis_timeout must be over 0, got nan",
        {"redis_timeout": math.nan},
    ),
    "password as a list": Fault(
        {"default": REDIS},
        "redis_connection: redis_password expects text, got a list",
        {"redis_password": ["hunter2"]},
    ),
    "url": Fault(
        {"default": REDIS},
        "redis_connection: redis_url must look like redis://host:6379/0, rediss://… or unix:///path",
        {"redis_url": "http://:hunter2@localhost"},
    ),
    "port in url": Fault(
        {"default": REDIS},
        "redis_connection: redis_url must look like redis://host:6379/0",
        {"redis_url": "redis://:hunter2@localhost:port/0"},
    ),
    "option in url": Fault(
        {"default": REDIS},
        "redis_connection: redis_url has an unknown option",
        {"redis_url": "redis://:hunter2@localhost/0?colour=hunter2"},
    ),
}


def start(fault: Fault) -> str:
    """The text that a start with this configuration ends with."""
    settings.settings.update(kvs=fault.kvs, redis_connection=fault.redis)
    with pytest.raises(StartupCheck) as found:
        prestartup.startup_checks_and_init()
    assert isinstance(found.value, MissingKVSParameters)
    error: BaseException | None = found.value
    while error is not None:  # no traceback shows a password either
        assert "hunter2" not in f"{error} {error!r}"
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__
    return str(found.value)


@pytest.mark.parametrize("name", FAULTS)
def test_error_is_reported(name: str) -> None:
    fault = FAULTS[name]
    text = start(fault)
    assert text.startswith("the `kvs` configuration cannot be used:\n  - ")
    wanted = fault.message if ".*" in fault.message else re.escape(fault.message)
    reported = [line for line in text.splitlines()[1:] if re.search(wanted, line)]
    assert len(reported) == 1, text
    assert len(text.splitlines()) == 2, text


@pytest.mark.parametrize("name", FAULTS)
def test_fault_leaves_the_stores_that_were_there(name: str) -> None:
    settings.settings.update(kvs={"default": STUB, "kept": STUB})
    kvs_startup_check()
    before = KVS(), KVS.kept()
    start(FAULTS[name])
    assert (KVS(), KVS.kept()) == before
    assert KVS.names() == ["default", "kept"]


def test_all_errors_are_reported_together(tmp_path: Path) -> None:
    text = start(
        Fault(
            {
                "a": {"type": "nothing"},
                "b": {"type": "redis_ephemeral", "expiry": 0, "prefx": "x", "prefix": 1},
                "c": None,
                "d": {"type": "filesystem", "path": "file"},
                "e": REDIS,
                "f": {"type": "redis_ephemeral", "expiry": 1},
                "add_item": {"type": "filesystem"},
            },
            "",
            {"redis_port": "x", "redis_hots": "y"},
        )
    )
    assert re.findall(
        r"^  - (kvs\.\w+(?:\.\w+)?|redis_connection: .*redis_\w+)", text, re.MULTILINE
    ) == [
        "kvs.a",
        "kvs.b",
        "kvs.b.expiry",
        "kvs.b.prefix",
        "kvs.c",
        "kvs.add_item",
        "kvs.add_item",
        "kvs.default",
        "kvs.d",
        "redis_connection: redis_port",
        "redis_connection: unknown option 'redis_hots'; did you mean redis_host",
    ]


@pytest.mark.parametrize("expiry", [1.5, 1, 0.001, 30, 315_360_000])
def test_expiry_that_is_fine(expiry: float) -> None:
    nowhere = {"redis_host": "127.0.0.1", "redis_port": closed_port()}
    settings.settings.update(kvs=cache(expiry=expiry), redis_connection=nowhere)
    kvs_startup_check()
    store = KVS.cache()
    assert isinstance(store, EphemeralRedisKVS)
    assert store._ttl_ms == expiry * 1000
