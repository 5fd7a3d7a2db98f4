"""Measures a user's reducers and events on the configured stores: events/s, latencies, bytes.

Real data is not touched. `apart` changes a configuration so that each store uses a temporary
prefix or directory, which is removed afterwards; otherwise the stores are those of production.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from lo_kvs.ingest.event_log import BATCH_LINES_MAX
from lo_kvs.kvs import KVSError, Store
from lo_kvs.kvs.configuration import Entry
from lo_kvs.measure.timing import (
    Contestant,
    Middle,
    Miscount,
    Run,
    Step,
    drive,
    interleaved,
    middle,
    ratio,
    timed_pass,
)
from lo_kvs.measure.workload import (
    Session,
    by_student,
    check_states,
    planned,
    reduce_without_store,
    states_without_store,
)
from lo_kvs.stream_analytics.engine.fold import Event
from lo_kvs.stream_analytics.pipeline import Pipeline

PREFIX: Final = "lo-kvs-bench:"
#: States that expire while they are measured would count as lost.
EXPIRY_MIN_S: Final = 3600
NO_STORE: Final = "no store"
#: The number of sessions that means batches.
BATCHES: Final = 0
#: Bytes that a store's server has received so far, or `None` if unknown.
InputBytes = Callable[[], Awaitable[int | None]]


class Figures(NamedTuple):
    """The result of one store with one number of sessions.

    sessions      concurrent sessions; BATCHES: one program that sends batches, as ingest does
    p50_us …      latencies of an event through all its reducers; `None` for batches
    event_bytes   sent to the server per event; `None` if unknown
    of_no_store   events/s divided by those of the same reducers without a store
    """

    store: str
    sessions: int
    events_s: Middle
    p50_us: Middle | None
    p99_us: Middle | None
    event_bytes: float | None
    of_no_store: Middle

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON."""
        return {
            name: value._asdict() if isinstance(value, Middle) else value
            for name, value in self._asdict().items()
        }


def apart(entries: Sequence[Entry], token: str) -> tuple[dict[str, dict[str, Any]], list[Path]]:
    """The `kvs` block of the same stores on temporary data, and the directories created for it."""
    block: dict[str, dict[str, Any]] = {}
    folders: list[Path] = []
    for entry in entries:
        options = dict(entry.options)
        if entry.type == "filesystem":
            # Next to the store's directory, to be on the same disk.
            path = Path(options["path"]).absolute()
            path.parent.mkdir(parents=True, exist_ok=True)
            made = tempfile.mkdtemp(prefix=f"{path.name}.bench-", dir=path.parent)
            folders.append(Path(made))
            options["path"] = made
        elif entry.type != "stub":
            options["prefix"] = f"{PREFIX}{token}:{entry.name}:{options.get('prefix', '')}"
        if "expiry" in options:
            options["expiry"] = max(options["expiry"], EXPIRY_MIN_S)
        block[entry.name] = {"type": entry.type, **options}
    return block, folders


class Trial:
    """Runs the same events through the same reducers, on each store and without a store.

    events  those that `pipeline` processes; sessions replay them student by student
    failed  how many failed in a reducer so far
    """

    def __init__(
        self, pipeline: Pipeline, events: Sequence[Event], *, seconds: float, rounds: int
    ) -> None:
        self.failed = 0
        self.unchecked = ""
        self._pipeline = pipeline
        self._events = events
        self._logs = by_student(events)
        self._seconds = seconds
        self._rounds = rounds
        self._bytes: dict[str, list[float]] = {}

    async def measure(
        self,
        stores: Mapping[str, Store],
        sessions: Sequence[int],
        input_bytes: Mapping[str, InputBytes],
    ) -> list[Figures]:
        """The figures of every store for every number of sessions, batches last.

        Raises `Miscount` if the states in a store are wrong, and what the stores raise.
        """
        runs = planned(self._pipeline, self._events)
        without = Contestant(NO_STORE, lambda: timed_pass(lambda: self._without_store(runs)))
        asked = [(name, count) for name in stores for count in [*sessions, BATCHES]]
        contestants = [
            self._contestant(name, count, stores[name], input_bytes.get(name))
            for name, count in asked
        ]
        found = await interleaved([without, *contestants], self._rounds)
        bare = [run.events_s for run in found[NO_STORE]]
        figures = []
        for (name, count), contestant in zip(asked, contestants, strict=True):
            mine = found[contestant.name]
            speeds = [run.events_s for run in mine]
            timed = bool(mine[0].latencies_us)
            sent = self._bytes.get(contestant.name)
            figures.append(
                Figures(
                    name,
                    count,
                    middle(speeds),
                    middle([run.latency_us(0.5) for run in mine]) if timed else None,
                    middle([run.latency_us(0.99) for run in mine]) if timed else None,
                    middle(sent).median if sent else None,
                    ratio(speeds, bare),
                )
            )
        return figures

    def _contestant(
        self, store_name: str, count: int, store: Store, input_bytes: InputBytes | None
    ) -> Contestant:
        name = f"{store_name}/{count}"
        players = [
            Session(f"bench-{count}-{number}", self._logs[number % len(self._logs)])
            for number in range(count or len(self._logs))
        ]
        if count == BATCHES:
            run = functools.partial(timed_pass, functools.partial(self._batch, players, store))
        else:
            steps = [self._step(player, store) for player in players]
            run = functools.partial(drive, steps, self._seconds)

        async def counted() -> Run:
            before = await input_bytes() if input_bytes else None
            made = await run()
            after = await input_bytes() if input_bytes else None
            if before is not None and after is not None:
                self._bytes.setdefault(name, []).append((after - before) / made.events)
            return made

        async def check(_sent: int) -> None:
            await self._check(name, players, store)

        return Contestant(name, counted, check)

    def _step(self, player: Session, store: Store) -> Step:
        async def step() -> None:
            try:
                await self._pipeline.process(player.next_event(), store=store)
            except KVSError:
                raise
            except Exception:  # noqa: BLE001 - a user's reducer can raise anything
                self.failed += 1

        return step

    async def _batch(self, players: Sequence[Session], store: Store) -> int:
        until = time.perf_counter() + self._seconds
        made = 0
        while not made or time.perf_counter() < until:
            turns = itertools.islice(itertools.cycle(players), BATCH_LINES_MAX)
            batch = [player.next_event() for player in turns]
            for error in await self._pipeline.process_batch(batch, store=store):
                if isinstance(error, KVSError):
                    raise error
                self.failed += error is not None
            made += len(batch)
        return made

    async def _without_store(self, runs: Sequence[Any]) -> int:
        await reduce_without_store(runs)
        return len(self._events)

    async def _check(self, name: str, players: Sequence[Session], store: Store) -> None:
        if self.failed:  # the reducers after the one that failed did not run
            self.unchecked = "events failed in a reducer"
            return
        expected: dict[str, Any] = {}
        shared: set[str] = set()
        for player in players:
            states = await states_without_store(planned(self._pipeline, player.again()))
            shared |= expected.keys() & states.keys()
            expected |= states
        for key in shared:  # shared by two sessions: their order is undefined
            del expected[key]
        try:
            await check_states(store, expected)
        except Miscount as miscount:
            once_more = await states_without_store(planned(self._pipeline, players[0].again()))
            if any(once_more[key] != expected.get(key, once_more[key]) for key in once_more):
                self.unchecked = "a reducer is not deterministic"
                return
            raise Miscount(f"{name}: {miscount}") from None
