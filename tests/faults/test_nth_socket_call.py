"""The n-th socket call of one update fails, for every n: the state is whole, the answer true."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from tests.faults.counting import kind_of
from tests.faults.socket_calls import (
    ERRORS,
    KINDS,
    SocketCalls,
    Strike,
    counts_socket_calls,
    nth,
    struck,
)
from tests.faults.tally import Tally
from tests.faults.worker import fault_count, key_of, metadata_of, one_more
from tests.faults.workers import tell

from lo_kvs.kvs import OutcomeUnknown, PersistentRedisKVS, Refused, Store, Unavailable
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.engine.engine import Engine
from lo_kvs.stream_analytics.helpers import KeyStateType
from lo_kvs.testing import ClusterServers
from lo_kvs.testing.servers.server import RedisServer

OLD = 7
#: So short that no second attempt is begun; and so long that none of the faults outlasts it.
SHORT_S = 0.03
LONG_S = 60.0
#: A call that never returns costs this much.
TIMEOUT_S = 0.25
AT_ONCE = 16  # runs side by side
#: How many calls fail at random at least, and how often each of two keys is counted meanwhile.
STRIKES, ROUNDS = 100, 20


@dataclass(frozen=True)
class Act:
    """What one run does: an update, or an event. What stands under which keys, and to do it.

    before  how often it is done first, unharmed: connections are open then, and commits go
            the short way
    """

    name: str
    stored: Callable[[str, int], dict[str, Any]]
    run: Callable[[Store, str], Awaitable[object]]
    before: int = 0


async def update(store: Store, name: str) -> object:
    return await store.update(name, one_more)


async def event(store: Store, name: str) -> object:
    keyed: Any = fault_count.__dict__["_kvs_keyed"]
    return await Engine(store).process(keyed.reducer, keyed.keys(metadata_of(name), {}), "event")


def one_count(name: str, count: int) -> dict[str, Any]:
    return {name: count}


def two_halves(name: str, count: int) -> dict[str, Any]:
    return {key_of(name): {"count": count}, key_of(name, KeyStateType.EXTERNAL): count}


ACTS = (
    Act("update", one_count, update),
    Act("event", two_halves, event),
    Act("update on open connections", one_count, update, before=2),
    Act("event on open connections", two_halves, event, before=2),
)


@dataclass(frozen=True)
class Run:
    """What one run came to: the answer, and the count in the store afterwards."""

    answer: str
    count: int


class Trial:
    """Runs one act after another on a server, each on a key of its own, struck by faults."""

    def __init__(self, server: RedisServer) -> None:
        # A database that is not the first: SELECT is a call of the greeting as well.
        self._url = server.url.removesuffix("/0") + "/3"
        self._raw = redis.Redis.from_url(self._url)
        self._names = (f"student {number}" for number in itertools.count())
        self.runs = 0
        self.answers: Counter[tuple[str, int]] = Counter()

    def close(self) -> None:
        self._raw.close()

    def flush_scripts(self) -> None:
        self._raw.script_flush()

    async def run(self, act: Act, calls: SocketCalls, *, retry_for: float) -> Run:
        name = next(self._names)
        self._put(act.stored(name, OLD))
        where = RedisSettings(url=self._url, retry_for=retry_for, timeout=TIMEOUT_S)
        with struck(calls):
            async with PersistentRedisKVS(connection=where) as store:
                calls.on = False
                for _ in range(act.before):
                    await self._until_done(act, store, name)
                if act.before:
                    self._settle()
                    self._put(act.stored(name, OLD))
                calls.on = True
                try:
                    returned = await act.run(store, name)
                except (Unavailable, Refused, OutcomeUnknown) as error:
                    answer = kind_of(error)
                else:
                    assert returned == OLD + 1
                    answer = "done"
                calls.on = False
                count = self._count(act, name)
                await self._still_works(store, act.stored(name, OLD + count))
        if calls.strikes:
            self.runs += 1
            self.answers[answer, count] += 1
        return Run(answer, count)

    async def _until_done(self, act: Act, store: Store, name: str) -> None:
        for left in range(50, -1, -1):
            try:
                await act.run(store, name)
                return
            except (Unavailable, OutcomeUnknown):  # a busy machine, and a deadline of 30 ms
                assert left, "the store does not work"

    def _put(self, items: dict[str, Any]) -> None:
        self._raw.mset({key: json.dumps(value) for key, value in items.items()})

    def _settle(self) -> None:
        for _ in range(3):  # what other connections had brought before is served by then
            self._raw.ping()

    def _count(self, act: Act, name: str) -> int:
        """How often the act was carried out, once all that was sent has been."""
        self._settle()
        for times in (0, 1, 2):
            expected = act.stored(name, OLD + times)
            found = {key: json.loads(self._raw.get(key) or "null") for key in expected}
            if found == expected:
                return times
        raise AssertionError(f"torn, or counted thrice: {found}")

    async def _still_works(self, store: Store, expected: dict[str, Any]) -> None:
        for left in range(50, -1, -1):
            try:
                assert await store.multiget(expected) == [*expected.values()]
                return
            except Unavailable:  # a busy machine, and a deadline of 30 ms
                assert left, "the store did not come back"


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    counts_socket_calls(monkeypatch)
    with RedisServer(password="of the greeting") as server:
        trial = Trial(server)
        yield trial
        trial.close()


TRUE: dict[str, set[int]] = {
    "done": {1},
    "Unavailable": {0},
    "Refused": {0},
    "OutcomeUnknown": {0, 1},
}


async def every_call(trial: Trial, act: Act, strike: Strike, retry_for: float) -> int:
    """Strike the first call, the second, and so on, until a run has no more calls."""
    for n in itertools.count(1):
        while True:
            calls = SocketCalls(nth(n, strike))
            run = await trial.run(act, calls, retry_for=retry_for)
            context = f"{act.name}, {strike}, call {n} of {retry_for} s: {calls.strikes}, {run}"
            assert run.count in TRUE[run.answer], context
            if retry_for == LONG_S:
                assert run.answer == "done", context
            if calls.strikes:
                break
            if run.answer == "done":
                return n - 1
            # Else a busy machine took all of a short deadline: the same call once more.
    raise AssertionError


async def all_kinds(trial: Trial, kinds: tuple[str, ...], *, at_once: int) -> Counter[str]:
    """Every kind of error at every call: how many calls there were, by kind."""
    found: Counter[str] = Counter()
    gate = asyncio.Semaphore(at_once)

    async def one(act: Act, strike: Strike, retry_for: float) -> None:
        async with gate:
            calls = await every_call(trial, act, strike, retry_for)
        found[strike.kind] += calls

    async with asyncio.TaskGroup() as group:
        for act, kind, after, retry_for in itertools.product(
            ACTS, kinds, (False, True), (SHORT_S, LONG_S)
        ):
            group.create_task(one(act, Strike(kind, after), retry_for))
    return found


def test_every_socket_call_fails_once(trial: Trial, tally: Tally) -> None:
    start = time.monotonic()
    found = asyncio.run(all_kinds(trial, KINDS, at_once=AT_ONCE))
    tell(f"{dict(found)}; {dict(trial.answers)}; {time.monotonic() - start:.1f} s")
    # Two connections (open, AUTH, SELECT: three calls each), a read and a commit, eight times.
    assert all(found[kind] >= 8 * 20 for kind in ERRORS)
    # Each answer was met, and the unknown outcome in both its forms.
    assert {*trial.answers} >= {
        ("done", 1),
        ("Unavailable", 0),
        ("OutcomeUnknown", 0),
        ("OutcomeUnknown", 1),
    }
    tally("T2", trial.runs, "old or new, every answer true, none applied twice")


def test_every_socket_call_fails_once_where_scripts_must_be_sent(trial: Trial) -> None:
    """EVALSHA, NOSCRIPT, EVAL: one after another, as a flush would help the neighbours too."""

    class Flushed(Trial):
        async def run(self, act: Act, calls: SocketCalls, *, retry_for: float) -> Run:
            self.flush_scripts()
            return await super().run(act, calls, retry_for=retry_for)

    trial.__class__ = Flushed
    found = asyncio.run(all_kinds(trial, ("reset",), at_once=1))
    assert found["reset"] >= 8 * 26


@pytest.mark.parametrize("kind", ["attribute", "type"])
@pytest.mark.parametrize("clustered", [False, True], ids=["single", "cluster"])
def test_connection_that_breaks_again_while_it_is_closed(
    redis_server: RedisServer,
    cluster: ClusterServers,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    clustered: bool,
    kind: str,
) -> None:
    def plan(name: str) -> Strike | None:
        if name == "close":
            return Strike(kind, after=True)
        return Strike("reset", after=True) if drawn.random() < 0.1 else None

    async def main() -> SocketCalls:
        where = RedisSettings(url=redis_server.url)
        if clustered:
            where = RedisSettings(cluster=True, nodes=cluster.nodes)
        with struck(SocketCalls(plan)) as calls:
            async with asyncio.timeout(20), PersistentRedisKVS(connection=where) as store:
                for count in range(1, 61):
                    assert await store.update("key", one_more) == count
                calls.on = False
        return calls

    drawn = random.Random(seed)
    counts_socket_calls(monkeypatch)
    struck_names = Counter(name for name, _ in asyncio.run(main()).strikes)
    assert struck_names["close"] > 5


def test_socket_calls_that_fail_at_random_change_no_count(
    trial: Trial, seed: int, tally: Tally
) -> None:
    """Faults in a row, also while a connection that broke is opened anew."""
    drawn = random.Random(seed)

    def plan(name: str) -> Strike | None:
        if drawn.random() > 0.08:
            return None
        kind = "silence" if drawn.random() < 0.05 else drawn.choice(KINDS[:-1])
        strike = Strike(kind, drawn.random() < 0.5)
        return strike if strike.befalls(name) else None

    rounds: Counter[int] = Counter()

    async def main() -> tuple[int, list[Any]]:
        where = RedisSettings(url=trial._url, retry_for=LONG_S, timeout=TIMEOUT_S)
        with struck(SocketCalls(plan)) as calls:
            async with PersistentRedisKVS(connection=where) as store:
                keyed: Any = fault_count.__dict__["_kvs_keyed"]
                engine = Engine(store)

                async def count(task: int) -> None:
                    keys = keyed.keys(metadata_of(f"student {task % 2}"), {})
                    # Also where the other key's connection had all the luck.
                    while len(calls.strikes) < STRIKES or rounds[task % 2] < ROUNDS:
                        rounds[task % 2] += 1
                        await store.update(f"counter {task % 2}", one_more)
                        await engine.process(keyed.reducer, keys, "event")

                await asyncio.gather(*(count(task) for task in range(4)))
                calls.on = False
                names = [key_of(f"student {each}") for each in (0, 1)]
                values = await store.multiget(["counter 0", "counter 1", *names])
        return len(calls.strikes), values

    strikes, values = asyncio.run(main())
    tell(f"seed {seed}: {strikes} calls failed")
    counts = [rounds[each] for each in (0, 1)]
    assert values == [*counts, *({"count": count} for count in counts)]
    assert min(counts) >= ROUNDS
    counted = 2 * rounds.total()
    tally("T2", strikes, f"one after another at random: {counted} counts exact (seed {seed})")
