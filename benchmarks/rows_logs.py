"""P4 and P8: the class logs through the built-in reducers, and the bytes sent to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from benchmarks.baselines import ReadSetSet
from benchmarks.setting import Setting
from lo_kvs.ingest.event_log import BATCH_LINES_MAX
from lo_kvs.kvs import Store, codec
from lo_kvs.kvs.codec import Json
from lo_kvs.measure.report import Line, Result, Target, compare
from lo_kvs.measure.timing import (
    Contestant,
    Run,
    interleaved,
    middle,
    ratio,
    timed_pass,
)
from lo_kvs.measure.workload import (
    Planned,
    check_states,
    in_sessions,
    planned,
    reduce_without_store,
    states_without_store,
)
from lo_kvs.stream_analytics.engine.fold import Event
from lo_kvs.stream_analytics.pipeline import Pipeline

REDUCERS: Final = "lo_kvs.reducers"
SESSIONS: Final = 10
NO_STORE: Final = "the same reducers, no store"
BATCHES: Final = "batches"
SINGLY: Final = "event by event"
LOOP: Final = "read-set-set loop"


async def p4(setting: Setting) -> Result:
    """How near the reducers come to their speed without a store."""
    return await ClassLogs(setting).measure(min(setting.rounds, 5), bytes_too=False)


async def p8(setting: Setting) -> Result:
    """Bytes sent to Redis for an event, beside the loop with the same reducers."""
    return await ClassLogs(setting).measure(1, bytes_too=True)


class ClassLogs:
    """One pass over the logs and another, each from an empty server and a new store on."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._pipeline = Pipeline.of_module(REDUCERS)
        self._events = [event for event in setting.class_events() if self._pipeline.plan(event)]
        self._runs = planned(self._pipeline, self._events)
        self._sessions = in_sessions(self._events, SESSIONS)
        self._expected: dict[str, Json] = {}
        self._sent: dict[str, float] = {}  # bytes an event, by contestant

    async def measure(self, rounds: int, *, bytes_too: bool) -> Result:
        """The lines of P4, or those of P8, whose loop takes its time."""
        self._expected = await states_without_store(self._runs)
        contestants = [
            Contestant(BATCHES, lambda: self._on_store(BATCHES, self._in_batches)),
            Contestant(SINGLY, lambda: self._on_store(SINGLY, self._one_by_one)),
        ]
        if bytes_too:
            runs = await interleaved(contestants, rounds)
            runs[LOOP] = [await self._on_store(LOOP, self._loop)]
            return Result(self._bytes_lines(runs), sizes=self._sizes())
        bare = Contestant(NO_STORE, lambda: timed_pass(self._bare))
        runs = await interleaved([bare, *contestants], rounds)
        what = f"{self._setting.class_name()} ({len(self._events):,} events)"
        return Result(
            [
                compare("P4", f"{what} in batches", runs, BATCHES, NO_STORE, target=at_least(0.75)),
                compare(
                    "P4",
                    f"{what} {SINGLY}, {len(self._sessions)} sessions",
                    runs,
                    SINGLY,
                    NO_STORE,
                    target=at_least(0.5),
                ),
            ],
            sizes=self._sizes(),
        )

    def _bytes_lines(self, runs: dict[str, list[Run]]) -> list[Line]:
        what = f"{self._setting.class_name()}, sent to Redis"
        loop = [self._sent[LOOP]]
        lines = []
        for name, most in ((BATCHES, 0.1), (SINGLY, 1.0)):
            ours = [self._sent[name]]
            target = Target("at most", most)
            figures = middle(ours), LOOP, middle(loop), ratio(ours, loop)
            lines.append(Line("P8", f"{what}, {name}", "bytes/event", *figures, target))
        # One pass of the loop, after ours: for the order of magnitude.
        slow = {name: [found[-1]] for name, found in runs.items()}
        lines += [compare("P8", f"speed, {name}", slow, name, LOOP) for name in (BATCHES, SINGLY)]
        return lines

    async def _on_store(self, name: str, work: Callable[[Store], Awaitable[int]]) -> Run:
        setting = self._setting
        await setting.fresh()
        async with setting.store() as store:
            before = await setting.input_bytes()
            run = await timed_pass(lambda: work(store))
            self._sent[name] = (await setting.input_bytes() - before) / run.events
            await check_states(store, self._expected)
        return run

    async def _in_batches(self, store: Store) -> int:
        for start in range(0, len(self._events), BATCH_LINES_MAX):
            batch = self._events[start : start + BATCH_LINES_MAX]
            for error in await self._pipeline.process_batch(batch, store=store):
                if error is not None:
                    raise error
        return len(self._events)

    async def _one_by_one(self, store: Store) -> int:
        async def session(events: list[Event]) -> None:
            for event in events:
                await self._pipeline.process(event, store=store)

        async with asyncio.TaskGroup() as sessions:
            for events in self._sessions:
                sessions.create_task(session(events))
        return len(self._events)

    async def _bare(self) -> int:
        await reduce_without_store(self._runs)
        return len(self._events)

    async def _loop(self, _store: Store) -> int:
        client = self._setting.client

        async def session(runs: list[Planned]) -> None:
            for reducer, keys, event in runs:
                null = codec.decode(reducer.null)
                await ReadSetSet(client, reducer.function, null).process(keys, event)

        async with asyncio.TaskGroup() as sessions:
            for events in self._sessions:
                sessions.create_task(session(planned(self._pipeline, events)))
        return len(self._events)

    def _sizes(self) -> dict[str, int]:
        texts = [len(codec.encode(state)) for state in self._expected.values()]
        return {"states": len(texts), "mean": sum(texts) // len(texts), "largest": max(texts)}


def at_least(value: float) -> Target:
    """A ratio to reach."""
    return Target("at least", value)
