"""P3: a log replayed in batches, compared with the same work without a store."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

from benchmarks.baselines import ReadSetSet
from benchmarks.loop_process import LOOP
from benchmarks.rows_sessions import OURS, looping
from benchmarks.setting import Setting
from benchmarks.work import (
    counting,
    declared,
    event_of,
    flat_state,
    keys_of,
    nested_state,
    plain,
    text_size,
)
from lo_kvs.ingest.event_log import BATCH_LINES_MAX
from lo_kvs.kvs import codec
from lo_kvs.kvs.codec import Json
from lo_kvs.measure.report import Result, Target, compare
from lo_kvs.measure.timing import Contestant, Miscount, interleaved, timed_pass
from lo_kvs.stream_analytics.engine.fold import Event
from lo_kvs.stream_analytics.pipeline import Pipeline

STATE_BYTES: Final = 300
CEILING: Final = "decode, reduce, encode twice"
OBJECTS: Final = "a dict of objects"
SMALL_BATCH: Final = 256


async def p3(setting: Setting) -> Result:
    """1,000 states of 300 bytes; events of all of them, in no order."""
    students = replayed_students(setting)
    events = events_of_all(students, setting)
    result = Result()
    for shape, null, target in (
        ("flat", flat_state(STATE_BYTES), Target("at least", 0.7)),
        ("nested", nested_state(STATE_BYTES), None),
    ):
        await setting.fresh()
        result.sizes[shape] = text_size(null)
        reducer = counting(null, shape)
        small = f"{OURS}, {SMALL_BATCH} a batch"
        slow = ReadSetSet(setting.client, plain(reducer), null)
        async with setting.store():
            runs = await interleaved(
                [
                    batches(OURS, setting, reducer, students, events, size=BATCH_LINES_MAX),
                    batches(small, setting, reducer, students, events, size=SMALL_BATCH),
                    without_store(CEILING, plain(reducer), null, events, encoded=True),
                    without_store(OBJECTS, plain(reducer), null, events, encoded=False),
                    looping(LOOP, setting, slow, reducer, 1),
                ],
                setting.rounds,
            )
        work = f"replay in batches of {BATCH_LINES_MAX}, {len(students):,} keys, {shape} state"
        result.lines += [
            compare("P3", work, runs, OURS, CEILING, target=target),
            compare("P3", f"the same, {SMALL_BATCH} a batch", runs, small, CEILING),
            compare("P3", work, runs, OURS, OBJECTS),
            compare("P3", work, runs, OURS, LOOP),
        ]
    return result


def replayed_students(setting: Setting) -> list[str]:
    """Whose events are replayed."""
    return [f"replayed-{number}" for number in range(50 if setting.quick else 1000)]


def events_of_all(students: list[str], setting: Setting) -> list[Event]:
    """Events of all of them, in no order."""
    draw = random.Random(0)
    length = 3_000 if setting.quick else 40_000
    return [event_of(draw.choice(students)) for _ in range(length)]


def batches(
    name: str,
    setting: Setting,
    reducer: Any,
    students: list[str],
    events: list[Event],
    *,
    size: int,
) -> Contestant:
    """One pass over the events, in batches of `size`."""
    # Each contestant has students of its own, so that their counts stay apart.
    pipeline = Pipeline(declared(reducer))
    own = [event_of(f"{name}-{event['metadata']['auth']['safe_user_id']}") for event in events]

    async def work() -> int:
        made = 0
        for start in range(0, len(own), size):
            batch = own[start : start + size]
            errors = await pipeline.process_batch(batch)
            for error in errors:
                if error is not None:
                    raise error
            made += len(batch)
        return made

    async def check(sent: int) -> None:
        keys = [keys_of(reducer, f"{name}-{student}").internal for student in students]
        await setting.check_count(name, keys, sent)

    return Contestant(name, lambda: timed_pass(work), check)


def without_store(
    name: str,
    function: Callable[[Any, Any], Awaitable[Any]],
    null: Json,
    events: list[Event],
    *,
    encoded: bool,
) -> Contestant:
    """The ceiling: the same reducer on states in a dict, as texts or as the objects."""
    texts: dict[str, bytes] = {}
    states: dict[str, Any] = {}
    blank = codec.encode(null)
    shown = b""

    async def on_texts() -> int:
        nonlocal shown
        for event in events:
            student = event["metadata"]["auth"]["safe_user_id"]
            state = codec.decode(texts.get(student, blank))
            internal, external = await function(event, state)
            texts[student] = codec.encode(internal)
            shown = codec.encode(external)
        return len(events)

    async def on_objects() -> int:
        for event in events:
            student = event["metadata"]["auth"]["safe_user_id"]
            state = states.get(student)
            if state is None:
                state = codec.decode(blank)
            states[student], _ = await function(event, state)
        return len(events)

    async def check(sent: int) -> None:
        kept = [codec.decode(text) for text in texts.values()] if encoded else states.values()
        found = sum(state["count"] for state in kept)  # type: ignore[index, call-overload, misc]
        if found != sent:
            raise Miscount(f"{name}: {sent:,} events were made, {found:,} are counted")

    return Contestant(name, lambda: timed_pass(on_texts if encoded else on_objects), check)
