"""Times runs of many sessions, with contestants interleaved so that slow moments affect all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

#: The shares of events for which a run keeps the latency.
QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)

#: Objects that are made, less those that are freed, between two garbage collections; Python's
#: default is 700. A thousand sessions make as many objects at a time that all live.
COLLECT_AFTER: Final = 10_000

#: One event of a session, from its sending to its answer.
Step: TypeAlias = Callable[[], Awaitable[object]]


class Miscount(Exception):
    """Events were lost or applied twice: the figures of the run are not valid."""


class Run(NamedTuple):
    """The result of one run.

    events        how many were acknowledged
    seconds       from the first one's sending to the last one's answer
    latencies_us  the latency at each of QUANTILES; empty where events were not timed singly
    """

    events: int
    seconds: float
    latencies_us: tuple[float, ...] = ()

    @property
    def events_s(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def event_us(self) -> float:
        """Microseconds an event, all sessions together."""
        return self.seconds / self.events * 1e6

    def latency_us(self, quantile: float) -> float:
        """The latency that this share of the events kept below; one of QUANTILES."""
        return self.latencies_us[QUANTILES.index(quantile)]


class Contestant:
    """Something that takes part in a comparison.

    name   as the table calls it
    run    one round of its work
    check  given how many events all its rounds acknowledged; raises `Miscount` where the
           store says otherwise
    """

    def __init__(
        self,
        name: str,
        run: Callable[[], Awaitable[Run]],
        check: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.sent = 0
        self._run = run
        self._check = check

    async def run(self) -> Run:
        """One round; its events are counted in `sent`."""
        run = await self._run()
        self.sent += run.events
        return run

    async def check(self) -> None:
        """Raises `Miscount` where not every event of every round was counted once."""
        if self._check is not None:
            await self._check(self.sent)


async def drive(steps: Sequence[Step], seconds: float) -> Run:
    """Each of `steps` is a session: it goes on, one event after another, for `seconds`.

    What a step raises ends the run.
    """
    clock = time.perf_counter
    latencies: list[float] = []

    async def session(step: Step) -> None:
        sent = clock()
        while True:  # at least one event each, however short the run
            await step()
            answered = clock()
            latencies.append(answered - sent)
            if answered >= until:
                return
            sent = answered

    began = clock()
    until = began + seconds
    try:
        async with asyncio.TaskGroup() as sessions:
            for step in steps:
                sessions.create_task(session(step))
    except ExceptionGroup as failed:  # one store is lost for all of them: once is enough
        raise failed.exceptions[0] from None
    return timed(latencies, clock() - began)


async def timed_pass(work: Callable[[], Awaitable[int]]) -> Run:
    """One pass of `work`, which returns how many events it made."""
    began = time.perf_counter()
    events = await work()
    return Run(events, time.perf_counter() - began)


def timed(latencies: list[float], seconds: float) -> Run:
    """The run in which each event had one of `latencies`, in seconds."""
    latencies.sort()
    last = len(latencies) - 1
    at = tuple(latencies[min(last, int(q * len(latencies)))] * 1e6 for q in QUANTILES)
    return Run(len(latencies), seconds, at)


@contextlib.contextmanager
def rare_collections(*, collect_first: bool) -> Iterator[None]:
    """Have fewer garbage collections, and none of what is there already.

    A server does so after its start; see "A process with many sessions" in docs/operations.md.
    """
    thresholds = gc.get_threshold()
    if collect_first:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


async def interleaved(
    contestants: Sequence[Contestant], rounds: int, *, collect: bool = True
) -> dict[str, list[Run]]:
    """The runs of each contestant, taken in turns (A B A B).

    A first round warms up and is discarded, and all are checked at the end, the warm-up's
    events included. `collect` garbage before each run, where a run is long enough for that:
    nobody pays for what the one before left behind. Raises `Miscount`.
    """
    runs: dict[str, list[Run]] = {contestant.name: [] for contestant in contestants}
    for number in range(rounds + 1):
        for contestant in contestants:
            with rare_collections(collect_first=collect):
                run = await contestant.run()
            if number:
                runs[contestant.name].append(run)
    for contestant in contestants:
        await contestant.check()
    return runs


class Middle(NamedTuple):
    """A figure over the rounds: its median, its least and its greatest."""

    median: float
    least: float
    greatest: float


def middle(values: Sequence[float]) -> Middle:
    """The median of `values`, with their spread."""
    return Middle(statistics.median(values), min(values), max(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Middle:
    """The ratio round by round: what a round has in common cancels out."""
    return middle([a / b for a, b in zip(ours, theirs, strict=True)])
