"""Stores on a cluster: redirections and retries, refused changes, listing of keys."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import hiredis
import pytest
from tests.busy import late
from tests.kvs.redis_places import closed_port

from lo_kvs import settings
from lo_kvs.kvs import (
    KVS,
    Change,
    Conflict,
    Guard,
    InvalidKey,
    MissingKVSParameters,
    NotReplicated,
    Outcome,
    PersistentRedisKVS,
    Refused,
    Store,
    StoreClosed,
    Unavailable,
    WrongType,
    kvs_startup_check,
)
from lo_kvs.kvs.redis.cluster import topology
from lo_kvs.kvs.redis.cluster.client import ClusterClient
from lo_kvs.kvs.redis.durability import Durability
from lo_kvs.kvs.redis.key_names import cluster_name
from lo_kvs.kvs.redis.protocol.round_trips import RawConnection
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.stream_analytics.pipeline import Pipeline
from lo_kvs.testing import ClusterServers

INTERNAL = "Internal,m.f,STUDENT:s1"
EXTERNAL = "External,m.f,STUDENT:s1"


def settings_of(cluster: ClusterServers, retry_for: float = 30.0) -> RedisSettings:
    return RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=retry_for)


def on_cluster(
    cluster: ClusterServers, use: Callable[[Store], Awaitable[None]], retry_for: float = 30.0
) -> None:
    async def main() -> None:
        async with PersistentRedisKVS(connection=settings_of(cluster, retry_for)) as store:
            await use(store)

    asyncio.run(main())


def slot_and_other(cluster: ClusterServers, key: str) -> tuple[int, int]:
    """The slot of a key, and a node that does not serve it."""
    slot = cluster.slot_of(cluster_name(key).encode())
    return slot, (cluster.node_of(slot) + 1) % len(cluster.servers)


def one_more(value: Any) -> int:
    return int(value or 0) + 1


def pair(before: bytes | None, after: bytes) -> Change:
    return Change(INTERNAL, before, {INTERNAL: after, EXTERNAL: after})


def answered(reply: object) -> Any:
    """A server's reply, or the error that it is."""
    if isinstance(reply, hiredis.ReplyError):
        raise reply
    return reply


# -- slots that move -------------------------------------------------------------------------


def test_slot_that_moved_is_followed(cluster: ClusterServers) -> None:
    slot, _ = slot_and_other(cluster, INTERNAL)

    async def use(store: Store) -> None:
        for at in range(1, 7):
            assert await store.update(INTERNAL, one_more) == at
            assert await store[INTERNAL] == at
            to = (cluster.node_of(slot) + 1) % 3
            moved = await asyncio.to_thread(cluster.move_slot, slot, to)
            assert moved == 2  # the value, and the writer's record
            assert await store.get(INTERNAL) == at
        assert json.loads(cluster.on(cluster_name(INTERNAL).encode(), "GET")) == 6

    on_cluster(cluster, use)


def test_keys_that_moved_before_their_slot_are_asked_for(cluster: ClusterServers) -> None:
    slot, to = slot_and_other(cluster, INTERNAL)

    async def use(store: Store) -> None:
        assert await store.commit([pair(None, b"1")]) == [None]
        cluster.begin_move(slot, to)
        assert await store.commit([pair(b"1", b"2")]) == [None]  # they still are where they were
        cluster.move_names(slot, to, cluster.names_in(slot))
        async with asyncio.timeout(10):
            assert await store.multiget([INTERNAL, EXTERNAL]) == [2, 2]
            assert await store.commit([pair(b"2", b"3"), pair(b"2", b"4")]) != [None, None]
            assert await store.update(INTERNAL, one_more) == 4
            # A read of one key needs no key to be there.
            assert await store["Internal,m.g,STUDENT:s1"] is None
        cluster.end_move(slot, to)
        assert await store.multiget([INTERNAL, EXTERNAL]) == [4, 3]

    on_cluster(cluster, use)


def test_keys_on_two_nodes_during_a_move_are_retried(cluster: ClusterServers) -> None:
    slot, to = slot_and_other(cluster, INTERNAL)

    async def use(store: Store) -> None:
        assert await store.commit([pair(None, b"1")]) == [None]
        cluster.begin_move(slot, to)
        cluster.move_names(slot, to, [cluster_name(INTERNAL).encode()])
        change = asyncio.create_task(store.commit([pair(b"1", b"2")]))
        await asyncio.sleep(0.3)
        assert not change.done()
        async with asyncio.timeout(10):
            assert await store.multiget([INTERNAL, EXTERNAL]) == [1, 1]
            cluster.move_names(slot, to, cluster.names_in(slot))
            assert await change == [None]
        # A key that is on neither node can be written when the slot has moved, not before.
        new = asyncio.create_task(store.set("Internal,m.g,STUDENT:s1", "new"))
        await asyncio.sleep(0.2)
        assert not new.done()
        cluster.end_move(slot, to)
        async with asyncio.timeout(10):
            await new
        assert await store.multiget([INTERNAL, EXTERNAL, "Internal,m.g,STUDENT:s1"]) == [
            2,
            2,
            "new",
        ]

    on_cluster(cluster, use)


def test_keys_parted_for_too_long_are_unavailable(cluster: ClusterServers) -> None:
    slot, to = slot_and_other(cluster, INTERNAL)

    async def use(store: Store) -> None:
        assert await store.commit([pair(None, b"1")]) == [None]
        cluster.begin_move(slot, to)
        cluster.move_names(slot, to, [cluster_name(INTERNAL).encode()])
        loop = asyncio.get_running_loop()
        start = loop.time()
        (outcome,) = await store.commit([pair(b"1", b"2")])
        assert isinstance(outcome, Unavailable)  # nothing was written, and that is known
        assert 0.3 < loop.time() - start < late(1.0)
        cluster.move_names(slot, to, cluster.names_in(slot))
        cluster.end_move(slot, to)
        assert await store.multiget([INTERNAL, EXTERNAL]) == [1, 1]

    on_cluster(cluster, use, retry_for=0.5)


# -- scripts, types, keys of several slots -----------------------------------------------------


def calls_of(cluster: ClusterServers, command: str) -> int:
    stats = "".join(cluster.ask(node, "INFO", "commandstats").decode() for node in range(3))
    lines = [line for line in stats.splitlines() if line.startswith(f"cmdstat_{command}:")]
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines)


def test_lost_script_is_sent_once_to_each_node(cluster: ClusterServers) -> None:
    async def use(store: Store) -> None:
        items = {f"key {at}": at for at in range(300)}
        await store.multiset(items)
        for node in range(3):
            cluster.ask(node, "SCRIPT", "FLUSH")
            cluster.ask(node, "CONFIG", "RESETSTAT")
        await store.multiset({key: at + 1 for key, at in items.items()})
        assert await store.multiget(items) == [at + 1 for at in items.values()]
        # Each lane may meet it by itself; the rest of its pipeline is sent by digest again.
        assert 3 <= calls_of(cluster, "eval") <= 6 * 2

    on_cluster(cluster, use)


def test_foreign_type_befalls_its_own_key_only(cluster: ClusterServers) -> None:
    async def use(store: Store) -> None:
        keys = [f"key {at}" for at in range(20)]
        await store.multiset(dict.fromkeys(keys, 1))
        await store.remove("key 7")
        cluster.on(b"key 7", "RPUSH", "foreign")
        changes = [Change(key, b"1", {key: b"2"}) for key in keys]
        outcomes = await store.commit(changes)
        assert isinstance(outcomes[7], WrongType)
        assert "'key 7'" in str(outcomes[7])
        assert outcomes[:7] + outcomes[8:] == [None] * 19
        with pytest.raises(WrongType, match="'key 7'"):
            await store.multiget(keys)
        assert await store.multiget(keys[:7] + keys[8:]) == [2] * 19
        assert "key 7" not in await store.keys()

    on_cluster(cluster, use)


@pytest.mark.parametrize(
    ("guard", "other"),
    [("a", "b"), ("Internal,", "External,"), ("Internal,m.f,STUDENT:a", "External,m.f,STUDENT:b")],
)
def test_change_of_several_slots_is_refused(
    cluster: ClusterServers, guard: str, other: str
) -> None:
    async def use(store: Store) -> None:
        parted = Change(guard, Guard.ANY, {guard: b"1", other: b"1"})
        whole = Change("c", None, {"c": b"1"})
        refused, made = await store.commit([parted, whole])
        assert isinstance(refused, Refused)
        assert f"'{guard}' and '{other}' are in different slots" in str(refused)
        assert made is None
        assert await store.keys() == ["c"]
        outcomes: list[Outcome] = []
        store.submit(parted, outcomes.append)
        assert outcomes == []  # nobody is called back before `submit` has returned
        await asyncio.sleep(0)
        assert [type(outcome) for outcome in outcomes] == [Refused]

    on_cluster(cluster, use)


def test_way_of_a_key_looks_at_the_keys_beside_it(cluster: ClusterServers) -> None:
    guard, beside = "Internal,m.f,STUDENT:way", "External,m.f,STUDENT:way"
    outcomes: list[Outcome] = []

    async def use(store: Store) -> None:
        submit = store.submitter_for(guard)
        for text in (b"1", b"2", b"3"):  # the key beside it is new, then known
            submit(Change(guard, Guard.ANY, {guard: text, beside: text}), outcomes.append)
            submit(Change(guard, Guard.ANY, {guard: b"0", "a": text}), outcomes.append)
        many = [f"Internal,m.f{number},STUDENT:way" for number in range(9)]  # more than are known
        for text in (b"4", b"5"):
            submit(Change(guard, Guard.ANY, dict.fromkeys(many, text)), outcomes.append)
        await store.commit([Change(guard, None, {guard: b"0"})])  # answered after all before it
        assert await store.read([guard, beside, "a", *many]) == [b"3", b"3", None, *[b"5"] * 9]
        await store.aclose()
        with pytest.raises(StoreClosed):
            submit(Change(guard, Guard.ANY, {guard: b"6", beside: b"6"}), outcomes.append)

    on_cluster(cluster, use)
    made = [outcome for outcome in outcomes if outcome is None]
    refused = [str(outcome) for outcome in outcomes if isinstance(outcome, Refused)]
    assert (len(made), len(refused), len(outcomes)) == (5, 3, 8)
    assert all("different slots" in text for text in refused)


def test_commits_not_confirmed_by_replicas(cluster: ClusterServers) -> None:
    """The cluster has no replicas: changes are reported as not replicated, once per pipeline."""
    waits = 0

    class Counted(Durability):
        async def confirm(self, connection: RawConnection) -> NotReplicated | None:
            nonlocal waits
            waits += 1
            return await super().confirm(connection)

    async def main() -> None:
        durability = Counted(replicas=1, timeout=0.01)
        client = ClusterClient(settings_of(cluster), prefix="", ttl_ms=0, durability=durability)
        outcomes: list[Outcome] = []
        for at in range(60):
            client.submit(Change(f"key {at}", None, {f"key {at}": b"1"}), outcomes.append)
        client.submit(Change("key 0", None, {"key 0": b"2"}), outcomes.append)
        await client.aclose()
        short = [each for each in outcomes if isinstance(each, NotReplicated)]
        assert [(each.wanted, each.got) for each in short] == [(1, 0)] * 60
        assert [each for each in outcomes if not isinstance(each, NotReplicated)] == [
            Conflict(b"1")
        ]
        assert 1 < waits < 20
        assert sum(cluster.ask(node, "DBSIZE") for node in range(3)) > 60

    asyncio.run(main())


# -- listing -----------------------------------------------------------------------------------


def test_keys_of_all_nodes_are_listed_and_nothing_else(cluster: ClusterServers) -> None:
    async def use(store: Store) -> None:
        keys = [f"Internal,m.f,STUDENT:{at}" for at in range(500)] + ["plain", "Internal,m.f"]
        await store.multiset(dict.fromkeys(keys, 1))
        for name in (b"Internal,m.f,STUDENT:plain copy", b"External,m.f", b"\xff", b"Internal,{"):
            cluster.on(name, "SET", b"1")
        assert sorted(await store.keys()) == sorted(keys)
        assert sorted(await store.keys("Internal,m.f,STUDENT:4")) == sorted(
            key for key in keys if key.startswith("Internal,m.f,STUDENT:4")
        )
        assert await store.dump() == dict.fromkeys(keys, 1)
        await store.clear(everything=True)
        assert await store.keys() == []
        left = [name for node in range(3) for name in cluster.ask(node, "KEYS", "*")]
        assert len([name for name in left if not name.startswith(b"__lokvs:")]) == 4

    on_cluster(cluster, use)


def test_each_key_is_listed_once_while_slots_move(cluster: ClusterServers) -> None:
    async def use(store: Store) -> None:
        keys = [f"key {at}" for at in range(1_500)]
        await store.multiset(dict.fromkeys(keys, 1))
        slots = [cluster.slot_of(key.encode()) for key in keys[:40]]

        def move() -> None:
            for slot in slots:
                cluster.move_slot(slot, (cluster.node_of(slot) + 1) % 3)

        moving = asyncio.create_task(asyncio.to_thread(move))
        listed = 0
        while not moving.done():
            found = await store.keys("key")
            assert len(found) == len(set(found))
            assert set(found) <= set(keys)
            listed += 1
        await moving
        assert listed > 0
        assert sorted(await store.keys()) == sorted(keys)

    on_cluster(cluster, use)


def test_keys_that_move_to_a_node_that_was_listed_before(cluster: ClusterServers) -> None:
    async def use(store: Store) -> None:
        keys = [f"key {at}" for at in range(600)]
        await store.multiset(dict.fromkeys(keys, 1))
        await store.keys()
        client = store._running()  # type: ignore[attr-defined]
        assert isinstance(client, ClusterClient)
        ports = [server.port for server in cluster.servers]
        first, *_, last = [ports.index(port) for _, port in client._topology.primaries]
        slots = {cluster.slot_of(key.encode()) for key in keys}
        moving = [slot for slot in slots if cluster.node_of(slot) == last][:5]
        listed: list[str] = []
        async for key in store.scan():
            listed.append(key)
            for slot in moving:  # the first node has been listed, the last one has not
                cluster.move_slot(slot, first)
            moving = []
        assert sorted(listed) == sorted(keys)

    on_cluster(cluster, use)


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["{", "}", "a{b}:"])
def test_prefix_with_braces_is_refused(
    cluster: ClusterServers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidKey, match="Choose a prefix without braces"):
        PersistentRedisKVS(prefix=prefix, connection=settings_of(cluster))
    block = {"redis_cluster": True, "redis_nodes": list(cluster.nodes)}
    monkeypatch.setattr(settings, "settings", {"redis_connection": block})

    async def first_use() -> None:
        async with PersistentRedisKVS(prefix=prefix) as store:
            for use in (lambda: store.set("a", 1), lambda: store.get("a"), store.keys):
                with pytest.raises(InvalidKey, match="Choose a prefix without braces"):
                    await use()

    asyncio.run(first_use())
    settings.settings["kvs"] = {"default": {"type": "redis", "prefix": prefix}}
    with pytest.raises(MissingKVSParameters, match=r"kvs\.default: .* without braces"):
        kvs_startup_check()
    assert cluster.ask(0, "DBSIZE") == 0


def test_one_reachable_node_is_enough_to_start(cluster: ClusterServers) -> None:
    nodes = (*(f"127.0.0.1:{closed_port()}" for _ in range(3)), cluster.nodes[1])

    async def main() -> None:
        async with PersistentRedisKVS(connection=RedisSettings(cluster=True, nodes=nodes)) as store:
            await store.multiset({f"key {at}": at for at in range(50)})
            assert len(await store.keys()) == 50

    asyncio.run(main())


def test_nodes_that_answer_too_late_leave_nothing_open(
    cluster: ClusterServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology, "NEXT_NODE_S", 0.0005)  # all are asked, one is listened to

    async def main() -> None:
        for _ in range(60):
            async with PersistentRedisKVS(connection=settings_of(cluster)) as store:
                assert await store["a"] is None

    asyncio.run(main())
    gc.collect()  # a file or socket left open is reported now


def test_no_node_answers() -> None:
    nodes = tuple(f"127.0.0.1:{closed_port()}" for _ in range(3))
    where = RedisSettings(cluster=True, nodes=nodes, retry_for=0.5)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with PersistentRedisKVS(connection=where) as store:
            for use in (lambda: store.get("a"), lambda: store.set("a", 1), store.keys):
                start = loop.time()
                with pytest.raises(Unavailable, match=r"the cluster of 127\.0\.0\.1:\d+: "):
                    await use()
                assert loop.time() - start < late(1.0)

    asyncio.run(main())


def test_single_server_is_not_a_cluster(redis_url: str) -> None:
    place = RedisSettings(url=redis_url).place
    where = RedisSettings(cluster=True, nodes=(place,), retry_for=0.5)

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            for use in (lambda: store.set("a", 1), lambda: store.get("a"), store.keys):
                with pytest.raises(Refused, match="cluster support disabled"):
                    await use()

    asyncio.run(main())


# -- reducers ------------------------------------------------------------------------------------


@student_event_reducer(null_state={"n": 0}, module_override="m", qualname_override="count")
async def count(event: Any, state: Any) -> tuple[Any, Any]:
    state["n"] += 1
    return state, {"shown": state["n"]}


@student_event_reducer(null_state=[], module_override="m", qualname_override="seen")
async def seen(event: Any, state: Any) -> tuple[Any, Any]:
    state.append(event["client"]["at"])
    return state, len(state)


def on_router(use: Callable[[Store], Coroutine[Any, Any, None]], cluster: ClusterServers) -> None:
    async def main() -> None:
        store = PersistentRedisKVS(connection=settings_of(cluster))
        KVS.add_item("default", store)
        try:
            async with store:
                await use(store)
        finally:
            KVS.remove_item("default")

    asyncio.run(main())


def test_reducers_through_their_decorators(cluster: ClusterServers) -> None:
    async def use(store: Store) -> None:
        async def student(name: str) -> None:
            process = await count({"auth": {"safe_user_id": name}})
            for at in range(1, 21):
                assert await process({}, {}) == {"shown": at}

        await asyncio.gather(*(student(f"s{at}") for at in range(40)))
        internal = await store.multiget([f"Internal,m.count,STUDENT:s{at}" for at in range(40)])
        external = await store.multiget([f"External,m.count,STUDENT:s{at}" for at in range(40)])
        assert internal == [{"n": 20}] * 40
        assert external == [{"shown": 20}] * 40
        name = b"Internal,m.count,{STUDENT:s3}"
        assert json.loads(answered(cluster.on(name, "GET"))) == {"n": 20}

    on_router(use, cluster)


def test_batches_of_events(cluster: ClusterServers) -> None:
    async def use(store: Store) -> None:
        pipeline = Pipeline([{"context": "s", "function": each} for each in (count, seen)])
        events: list[Any] = [
            {
                "client": {"event": "keystroke", "at": at},
                "metadata": {"source": "s", "auth": {"safe_user_id": f"s{at % 30}"}},
            }
            for at in range(600)
        ]
        await pipeline.process_batch(events, store=store)
        for at in range(30):
            assert await store[f"Internal,m.count,STUDENT:s{at}"] == {"n": 20}
            assert await store[f"Internal,m.seen,STUDENT:s{at}"] == list(range(at, 600, 30))
        # What reducers keep of one student lies in one slot, and has one writer there.
        client = store._running()  # type: ignore[attr-defined]
        assert isinstance(client, ClusterClient)
        assert len(client._writers) <= 30

    on_router(use, cluster)
