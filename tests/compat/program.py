"""A program as existing callers write them, from the list of names that they rely on.

    python program.py CREDS_YAML FOLDER

It starts the system from that file, uses everything in the ways that callers do, fails where
something behaves otherwise, and prints what its default store holds at the end. Which kinds
of store there are is the file's affair: the program is the same for all of them.
"""

# mypy: ignore-errors
# ruff: noqa: PLR0915, ASYNC240, PT017
# Callers have no types, and habits of their own: what checkers say of those is not tested here.

import asyncio
import inspect
import json
import sys
from pathlib import Path

import learning_observer.kvs
import learning_observer.prestartup
import learning_observer.redis_connection
import learning_observer.settings
import learning_observer.stream_analytics.helpers as sa_helpers
from learning_observer import kvs
from learning_observer.kvs import (
    KVS,
    KVS_MAP,
    EphemeralRedisKVS,
    FilesystemKVS,
    InMemoryKVS,
    KVSRouter,
    MissingKVSParameters,
    PersistentRedisKVS,
    kvs_startup_check,
)
from learning_observer.prestartup import StartupCheck
from learning_observer.stream_analytics.fields import ScopeFieldError
from learning_observer.stream_analytics.helpers import (
    EventField,
    KeyField,
    KeyStateType,
    Scope,
    kvs_pipeline,
    student_event_reducer,
)

checked = []


@learning_observer.prestartup.register_startup_check
def check_roster():
    checked.append("check")


@learning_observer.prestartup.register_init_function
def init_cache():
    checked.append("init")


@student_event_reducer(null_state={"saves": 0, "by": {}})
async def activity(event, state):
    """Counts a student's events."""
    kind = event["client"]["event"]
    if kind == "ignored":
        return False, False
    state["saves"] += 1
    state["by"][kind] = state["by"].get(kind, 0) + 1
    return state, state


DOCUMENT = Scope([KeyField.STUDENT, EventField("doc_id")])


@kvs_pipeline(scope=DOCUMENT)
async def last_document(event, state):
    if event["client"]["event"] == "quiet":
        return {"last": None}, False
    return False, {"last": event["client"]["doc_id"]}


async def plain(event, state):
    return (state or 0) + 1, None


tally = kvs_pipeline(
    null_state=None, scope=Scope([]), module_override="old.module", qualname_override="tally"
)(plain)
tally_by_student = student_event_reducer(null_state=10)(plain)

REDUCERS = [
    {
        "context": "org.example.docs",
        "scope": Scope([KeyField.STUDENT]),
        "function": activity,
        "default": {"saves": 0},
    },
    {"context": "org.example.docs", "scope": DOCUMENT, "function": last_document, "default": {}},
]


def metadata_of(student):
    return {"source": "org.example.docs", "auth": {"safe_user_id": student, "user_id": "x"}}


async def use_stores(folder):
    store = kvs.KVS()
    assert kvs.KVS() is learning_observer.kvs.KVS() is KVS()
    assert await store["absent"] is None
    await store.set("email-studentID-mapping:a@b.c", "s1")
    memo = json.dumps({"args": ["a/b", None], "kwargs": {"x": [1, 2.5]}}) * 20
    await store.set(memo, [1, 2.5, None, {"nested": {"é": "😀"}}])
    await store.set("NLP_CACHE_17", {"tuple": (1, 2), 3: "three"})
    assert await store["NLP_CACHE_17"] == {"tuple": [1, 2], "3": "three"}
    found = await store.multiget(keys=["NLP_CACHE_17", "absent", "email-studentID-mapping:a@b.c"])
    assert found == [{"tuple": [1, 2], "3": "three"}, None, "s1"], found
    assert await store.multiget(["absent", memo]) == [None, await store[memo]]
    assert sorted(await store.keys()) == sorted(
        ["email-studentID-mapping:a@b.c", memo, "NLP_CACHE_17"]
    )
    dumped = await store.dump()
    assert dumped["email-studentID-mapping:a@b.c"] == "s1"
    filename = str(Path(folder) / "dump.json")
    assert await store.dump(filename) == dumped
    assert json.loads(Path(filename).read_text(encoding="utf-8")) == dumped
    await store.remove(memo)
    await store.remove("never there")
    assert await store[memo] is None
    await store.set("NLP_CACHE_17", None)
    await store.load(filename)
    assert await store.dump() == dumped
    await store.remove(memo)

    memoization = KVS.memoization()
    assert memoization is kvs.KVS.memoization()
    await memoization.set("f(1)", 1)
    assert await store["f(1)"] is None
    assert await memoization["f(1)"] == 1
    assert await kvs.KVS.google_cache()["f(1)"] is None
    try:
        learning_observer.kvs.KVS.nothing()
    except AttributeError:
        pass
    else:
        raise AssertionError("a store that is not configured")
    assert getattr(KVS, "nothing", None) is None

    scratch = InMemoryKVS()
    await scratch.set("a", {"b": 1})
    (await scratch["a"])["b"] = 2
    assert await scratch.dump() == {"a": {"b": 1}}
    await scratch.clear()
    assert await scratch.keys() == []

    KVS.add_item("scratch", lambda: scratch)
    assert KVS.scratch() is scratch
    KVS.remove_item("scratch")
    assert not hasattr(KVS, "scratch")
    router = KVSRouter(default=lambda: scratch, items=[("other", lambda: scratch)])
    assert router() is router.other() is scratch
    files = FilesystemKVS(str(Path(folder) / "files"), subdirs=True)
    await files.set("some/where", 1)
    assert await files.keys() == ["some/where"]
    for made in (EphemeralRedisKVS(expire=30), PersistentRedisKVS()):
        await made.set("direct", 1)
        assert await made["direct"] == 1
        await made.remove("direct")
        await made.aclose()
    assert set(KVS_MAP) == {"stub", "redis_ephemeral", "redis", "filesystem"}
    assert KVS_MAP["stub"] is InMemoryKVS


async def use_redis_connection():
    connection = learning_observer.redis_connection
    await connection.connect()
    await (await connection.connection()).ping()
    await connection.set("plain", json.dumps({"a": 1}), expiry=60)
    await connection.set("for good", "1")
    assert json.loads(await connection.get("plain")) == {"a": 1}
    assert await connection.get("absent") is None
    assert [value and json.loads(value) for value in await connection.mget(["plain", "no"])] == [
        {"a": 1},
        None,
    ]
    assert {"plain", "for good"} <= set(await connection.keys())
    await connection.delete("plain")
    await connection.delete("for good")
    assert await connection.get("plain") is None
    await (await connection.connection()).aclose()


async def run_reducers():
    assert inspect.iscoroutinefunction(activity)
    assert activity.__name__ == "activity"
    assert activity.__doc__ == "Counts a student's events."
    process = await activity(metadata_of("s1"))
    for kind in ("ignored", "save", "save", "open"):
        external = await process({"client": {"event": kind}}, {})
    assert external == {"saves": 3, "by": {"save": 2, "open": 1}}
    guest = await activity({"source": "org.example.docs"})
    assert await guest({"client": {"event": "ignored"}}, {}) is False

    process = await last_document(metadata_of("s1"))
    for document in ("D", "E/1", "E,STUDENT:s2"):
        event = {"client": {"event": "open", "doc_id": document}}
        assert await process(event, {"doc_id": document}) == {"last": document}
    await process({"client": {"event": "quiet"}}, {})

    for reducer in (tally, tally_by_student):
        process = await reducer(metadata_of("s2"))
        for _ in range(3):
            await process({"client": {"event": "save"}}, {})

    key = sa_helpers.make_key(
        activity, {sa_helpers.KeyField.STUDENT: "s1"}, sa_helpers.KeyStateType.INTERNAL
    )
    assert key == f"Internal,{sa_helpers.fully_qualified_function_name(activity)},STUDENT:s1"
    assert key == sa_helpers.make_key_from_json(
        {
            "source": sa_helpers.fully_qualified_function_name(activity),
            "KeyField.STUDENT": "s1",
        },
        sources=[activity],
    )
    # Written from outside while the reducer is live.
    await kvs.KVS().set(key, {"saves": 100, "by": {}})
    process = await activity(metadata_of("s1"))
    assert (await process({"client": {"event": "save"}}, {}))["saves"] == 101

    teachers = kvs_pipeline(scope=Scope([KeyField.TEACHER]))(plain)
    process = await teachers(metadata_of("s1"))
    try:
        await process({"client": {"event": "save"}}, {})
    except ScopeFieldError:
        pass
    else:
        raise AssertionError("events do not say whose teacher")

    # As dashboards ask: one multiget, the default where there is nothing.
    keys = [
        sa_helpers.make_key(activity, {KeyField.STUDENT: student}, KeyStateType.EXTERNAL)
        for student in ("nobody", "s1")
    ]
    rows = await kvs.KVS().multiget(keys)
    assert [row or REDUCERS[0]["default"] for row in rows] == [
        {"saves": 0},
        {"saves": 101, "by": {"save": 1}},
    ]


def check_startup_errors():
    for bad in (None, {}, {"default": {"type": "filesystem"}}, {"default": {"type": "no such"}}):
        configured = learning_observer.settings.settings["kvs"]
        learning_observer.settings.settings["kvs"] = bad
        try:
            kvs_startup_check()
        except StartupCheck as error:
            assert isinstance(error, MissingKVSParameters)
        else:
            raise AssertionError(f"{bad} passed")
        finally:
            learning_observer.settings.settings["kvs"] = configured


async def main(folder):
    await use_redis_connection()
    await use_stores(folder)
    await run_reducers()
    states = await kvs.KVS().dump()
    await kvs.KVS.aclose()
    return states


if __name__ == "__main__":
    learning_observer.settings.load_settings(sys.argv[1])
    assert "kvs" in learning_observer.settings.settings
    learning_observer.prestartup.startup_checks_and_init()
    assert checked == ["check", "init"]
    before = KVS()
    check_startup_errors()
    kvs_startup_check()
    assert KVS() is before
    json.dump(asyncio.run(main(sys.argv[2])), sys.stdout)
