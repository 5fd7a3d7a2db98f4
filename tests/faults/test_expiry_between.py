"""A key that expires, or is made again by somebody else, between its reading and the commit."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis
from tests.faults.counting import is_commit
from tests.faults.tally import Tally
from tests.faults.worker import one_more
from tests.faults.workers import tell

from lo_kvs.kvs import KVS, EphemeralRedisKVS, PersistentRedisKVS, Store
from lo_kvs.kvs.changes import Change, Outcome
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.fields import KeyField, KeyStateType
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.stream_analytics.keys import make_key
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

#: So long that nothing expires unless a test makes it.
EXPIRE_S = 1_000
INTERNAL, EXTERNAL = (
    make_key("tests.expiring", {KeyField.STUDENT: "s1"}, kind)
    for kind in (KeyStateType.INTERNAL, KeyStateType.EXTERNAL)
)
METADATA = {"auth": {"safe_user_id": "s1"}}

#: What happens to a key meanwhile: by the server's own clock, or by somebody else's hand.
Meanwhile = Callable[[redis.Redis, str], None]


def nothing(raw: redis.Redis, key: str) -> None:
    assert raw.exists(key)


def expires(raw: redis.Redis, key: str) -> None:
    assert raw.pexpire(key, 1)
    while raw.exists(key):
        time.sleep(0.001)


def is_removed(raw: redis.Redis, key: str) -> None:
    assert raw.delete(key)


def is_made_again(raw: redis.Redis, key: str) -> None:
    """Under the same bytes: nobody can tell, and nobody need."""
    before = raw.get(key)
    expires(raw, key)
    assert isinstance(before, bytes)
    raw.set(key, before)


def is_made_anew(raw: redis.Redis, key: str) -> None:
    """With other bytes: 100, or a state that counts so many."""
    before = json.loads(raw.get(key) or "null")
    expires(raw, key)
    raw.set(key, json.dumps({"count": 100} if isinstance(before, dict) else 100))


#: What a count of 1 becomes with one more, by what happened to it meanwhile; None: it is gone.
BECOMES = {
    nothing: (2, 1),
    expires: (1, None),
    is_removed: (1, None),
    is_made_again: (2, 1),
    is_made_anew: (101, 100),
}
every_case = pytest.mark.parametrize(
    ("meanwhile", "after", "left"),
    [(what, *numbers) for what, numbers in BECOMES.items()],
    ids=[what.__name__ for what in BECOMES],
)
every_store = pytest.mark.parametrize("kind", ["redis", "redis_ephemeral"])


class Between:
    """Does something to a key, once."""

    def __init__(self, raw: redis.Redis, meanwhile: Meanwhile, key: str) -> None:
        self._raw = raw
        self._meanwhile = meanwhile
        self._key = key
        self.armed = False

    def happens(self) -> None:
        if self.armed:
            self.armed = False
            self._meanwhile(self._raw, self._key)


class Slow(EphemeralRedisKVS):
    """Something happens after each reading, before the commit that follows."""

    between: Between

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self.between.happens()
        return await super().commit(changes, deadline=deadline)


#: What the reducer waits for, and the counts that it was given.
reached: list[Callable[[], None]] = []
given: list[int] = []


@student_event_reducer(
    null_state={"count": 0}, module_override="tests", qualname_override="expiring"
)
async def expiring(event: Any, state: Any) -> tuple[Any, Any]:
    given.append(state["count"])
    await asyncio.sleep(0)
    for happen in reached:
        happen()
    if event == "look":
        return False, False
    state["count"] += 1
    return state, state["count"]


@pytest.fixture
def raw(redis_url: str) -> Iterator[redis.Redis]:
    reached.clear()
    given.clear()
    with redis.Redis.from_url(redis_url) as client:
        yield client


def settings_for(server: RedisServer) -> RedisSettings:
    return RedisSettings(host="127.0.0.1", port=server.port)


def store_of(kind: str, where: RedisSettings) -> Store:
    if kind == "redis":
        return PersistentRedisKVS(connection=where)
    return EphemeralRedisKVS(EXPIRE_S, connection=where)


def lives_on(raw: redis.Redis, kind: str, *keys: str) -> bool:
    """Whether each key has the life that its store gives."""
    ttls = [int(str(raw.pttl(key))) for key in keys]
    if kind == "redis":
        return ttls == [-1] * len(keys)
    return all((EXPIRE_S - 60) * 1000 < ttl <= EXPIRE_S * 1000 for ttl in ttls)


@every_store
@every_case
@pytest.mark.parametrize("when", ["while it is reduced", "while it is in the cache"])
def test_state_of_a_reducer(
    redis_server: RedisServer,
    raw: redis.Redis,
    tally: Tally,
    kind: str,
    meanwhile: Meanwhile,
    after: int,
    left: int | None,
    when: str,
) -> None:
    between = Between(raw, meanwhile, INTERNAL)

    async def main() -> None:
        async with store_of(kind, settings_for(redis_server)) as store:
            KVS.add_item("default", store)
            process = await expiring(METADATA)
            assert await process("event") == 1
            between.armed = True
            if when == "while it is in the cache":
                between.happens()
            reached.append(between.happens)
            assert await process("event") == after
            assert not between.armed
            # On the null state, or on what came instead, once more, where it was another one.
            assert given == ([0, 1] if after == 2 else [0, 1, after - 1])
            assert await store.multiget([INTERNAL, EXTERNAL]) == [{"count": after}, after]
            assert lives_on(raw, kind, INTERNAL, EXTERNAL)

    asyncio.run(main())
    tally("T15", 1, "event: reduced on what stands there when it is committed")


@every_case
def test_reducer_that_writes_nothing(
    redis_server: RedisServer,
    raw: redis.Redis,
    meanwhile: Meanwhile,
    after: int,
    left: int | None,
) -> None:
    """It is shown what stands in the store, and its looking makes no state and no new life."""

    async def main() -> None:
        async with store_of("redis_ephemeral", settings_for(redis_server)) as store:
            KVS.add_item("default", store)
            process = await expiring(METADATA)
            await process("event")
            raw.pexpire(INTERNAL, 100_000)
            meanwhile(raw, INTERNAL)
            assert await process("look") is False
            assert given[-1] == (left or 0)
            # A first event leaves the null state, even if its reducer wrote none.
            assert await store.get(INTERNAL) == {"count": left or 0}
            if meanwhile is nothing:
                assert int(str(raw.pttl(INTERNAL))) <= 100_000

    asyncio.run(main())


@every_case
def test_update(
    redis_server: RedisServer,
    raw: redis.Redis,
    tally: Tally,
    meanwhile: Meanwhile,
    after: int,
    left: int | None,
) -> None:
    between = Between(raw, meanwhile, "key")

    def slowly(value: Any) -> int:
        between.happens()
        return one_more(value)

    async def main() -> None:
        for kind in ("redis", "redis_ephemeral"):
            async with store_of(kind, settings_for(redis_server)) as store:
                await store.set("key", 1)
                between.armed = True
                assert await store.update("key", slowly) == after
                assert await store.get("key") == after
                assert lives_on(raw, kind, "key")

    asyncio.run(main())
    tally("T15", 2, "update: of what stands there when it is committed")


@every_case
def test_remove(
    redis_server: RedisServer,
    raw: redis.Redis,
    tally: Tally,
    meanwhile: Meanwhile,
    after: int,
    left: int | None,
) -> None:
    async def main() -> None:
        async with Slow(EXPIRE_S, connection=settings_for(redis_server)) as store:
            store.between = Between(raw, meanwhile, "key")
            await store.set("key", 1)
            store.between.armed = True
            # True: there was one, and it is gone, whoever had put it there.
            assert await store.remove("key") is (left is not None)
            assert not store.between.armed
            assert await store.exists("key") is False

    asyncio.run(main())
    tally("T15", 1, "remove: says whether there was one when it was removed")


def test_key_that_expires_after_a_lost_conflict_reply(
    redis_server: RedisServer, raw: redis.Redis, tally: Tally
) -> None:
    """The first attempt met other bytes, its reply was lost; the second finds only the record."""

    async def main() -> None:
        struck = False

        def strikes(request: bytes) -> bool:
            nonlocal struck
            if not is_commit(request) or not armed:
                return False
            if struck:  # the same call again
                expires(raw, "key")
                armed.clear()
                return False
            struck = True
            raw.set("key", 50)  # somebody else was faster
            return True

        armed: list[bool] = []
        faults = {Fault.SWALLOW_CLOSE: 1.0}
        async with FaultProxy("127.0.0.1", redis_server.port, faults=faults, only=strikes) as proxy:
            where = RedisSettings(host="127.0.0.1", port=proxy.port)
            async with EphemeralRedisKVS(EXPIRE_S, connection=where) as store:
                await store.set("key", 1)
                seen: list[Any] = []

                def change(value: Any) -> int:
                    seen.append(value)
                    if len(seen) == 1:
                        armed.append(True)
                    return one_more(value)

                assert await store.update("key", change) == 1
                assert seen == [1, None]
                assert proxy.counts.total() == 1

    asyncio.run(main())
    tally("T15", 1, "conflict whose reply was lost, then expiry: on what stands there")


def test_short_ttls_by_the_real_clock(
    redis_server: RedisServer, redis_url: str, seed: int, tally: Tally
) -> None:
    """Updates at random moments about the end of a life of 40 ms: one more, or one."""
    drawn = random.Random(seed)
    life_s, rounds, keys = 0.04, 40, 25
    came_to: Counter[str] = Counter()

    async def main() -> None:
        clock = time.monotonic
        where = settings_for(redis_server)
        async with EphemeralRedisKVS(life_s, connection=where) as store:

            async def live(key: str) -> None:
                count, begun, ended = 0, -1.0, -1.0
                for _ in range(rounds):
                    start = clock()
                    found = int(str(await store.update(key, one_more)))
                    end = clock()
                    assert found in {1, count + 1}
                    if found == 1 and count:
                        assert end - begun >= life_s - 0.002, "it expired too early"
                        came_to["expired"] += 1
                    elif count:
                        assert start - ended <= life_s + 0.002, "it lived too long"
                        came_to["lived"] += 1
                    count, begun, ended = found, start, end
                    await asyncio.sleep(drawn.uniform(0.6, 1.3) * life_s)

            await asyncio.gather(*(live(f"key {number}") for number in range(keys)))

    asyncio.run(main())
    tell(f"seed {seed}: {dict(came_to)}")
    assert came_to["expired"] > 20
    assert came_to["lived"] > 20
    tally("T15", came_to.total(), f"about the end of a life: {dict(came_to)} (seed {seed})")
