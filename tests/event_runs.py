"""Runs of odd events through odd reducers, the same ones for the same seed.

    python tests/event_runs.py 0 100          the results of the seeds 0 to 99, a line of JSON each
    python tests/event_runs.py --each FOLDER  for each compiled module of the copy in FOLDER: a run
                                              without that module

What is compared are these lines, of compiled and of pure Python: see test_compiled.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

EVENTS = 25
STUDENTS = ("s1", "s2", "s3")


class OddBytes(bytes):
    """Bytes that are not exactly `bytes`."""


class OddText(str):
    """Text that is not exactly `str`."""

    __slots__ = ()


class OddInt(int):
    """A number that is not exactly `int`."""


class OddDict(dict[Any, Any]):
    """A dict that is not exactly `dict`."""


class OddError(Exception):
    """What no other module knows."""


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    """A value that is JSON, converts to JSON, or is refused."""
    looped: list[Any] = []
    looped.append(looped)
    plain: list[Callable[[], Any]] = [
        lambda: rng.randrange(100),
        lambda: rng.choice((True, False, None, 0.5, -0.0, 1e300, "", "é", "💡", "\x00")),
        lambda: rng.choice((2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**40)),
    ]
    odd: list[Callable[[], Any]] = [
        lambda: rng.choice((float("nan"), float("inf"), b"bytes", OddBytes(b"odd"), {1}, object)),
        lambda: rng.choice((OddText("odd"), OddInt(7), OddDict(a=1), (1, 2), "\ud800", 10**4400)),
        lambda: rng.choice(({1: 2}, {None: 1}, {b"key": 1}, {OddText("key"): 1}, looped)),
    ]
    if depth < 3 and rng.random() < 0.4:
        size = rng.randrange(4)
        if rng.random() < 0.5:
            return [odd_value(rng, depth + 1) for _ in range(size)]
        return {f"k{number}": odd_value(rng, depth + 1) for number in range(size)}
    return rng.choice(odd if rng.random() < 0.15 else plain)()


def odd_reducers(rng: random.Random, calls: list[str]) -> list[dict[str, Any]]:
    """A `REDUCERS` list. What a reducer does with an event stands in the event."""
    from lo_kvs.stream_analytics.fields import EventField, KeyField, Scope
    from lo_kvs.stream_analytics.helpers import kvs_pipeline

    kept: list[Any] = []

    def result_of(name: str, event: Any, state: Any) -> Any:
        calls.append(f"{name} {event['n']} {state!r}"[:2000])
        does, value = event["client"].get("does", {}).get(name, ("count", None))
        if not isinstance(state, dict):
            state = {"was": state}
        if isinstance(state.get("n", 0), int):
            state["n"] = state.get("n", 0) + 1
        return DOES[does](state, value, kept)

    def counting(event: Any, state: Any) -> Any:
        return result_of("plain", event, state)

    async def plain(event: Any, state: Any) -> Any:
        return counting(event, state)

    async def waiting(event: Any, state: Any) -> Any:
        await asyncio.sleep(0)
        return result_of("waiting", event, state)

    async def by_document(event: Any, state: Any) -> Any:
        return result_of("by_document", event, state)

    scope = Scope([KeyField.STUDENT, EventField("doc_id")])
    null: Any = rng.choice((None, {"n": 0}, {"n": 0, "list": [1, {"deep": []}]}, [], 0))
    made = [
        kvs_pipeline(null, module_override="runs", qualname_override="plain")(plain),
        kvs_pipeline(null, module_override="runs", qualname_override="waiting")(waiting),
        kvs_pipeline(null, scope, "runs", "by_document")(by_document),
    ]
    rng.shuffle(made)
    return [{"context": "source", "function": each} for each in made[: rng.randint(1, 3)]]


def _raises(state: Any, value: Any, kept: list[Any]) -> Any:
    state["n"] = "broken"
    raise value


def _keeps(state: Any, value: Any, kept: list[Any]) -> Any:
    """What it returns it keeps, and changes it later: no state may see that."""
    kept.append(state)
    for each in kept[:-1]:
        each["late"] = len(kept)
    return state, state


def _shares(state: Any, value: Any, kept: list[Any]) -> Any:
    state["value"] = value  # a part of the event
    if isinstance(value, list):
        value.append("later")
    return state, {"value": value}


DOES: dict[str, Callable[[Any, Any, list[Any]], Any]] = {
    "count": lambda state, value, kept: (state, {"n": state["n"]}),
    "same": lambda state, value, kept: (state, state),
    "copies": lambda state, value, kept: ({**state, "value": value}, [value]),
    "internal": lambda state, value, kept: (state, False),
    "external": lambda state, value, kept: (False, {"value": value}),
    "neither": lambda state, value, kept: (False, False),
    "zero": lambda state, value, kept: (0, 0),
    "odd pair": lambda state, value, kept: value,
    "raises": _raises,
    "keeps": _keeps,
    "shares": _shares,
}


def odd_event(rng: random.Random, number: int) -> Any:
    """An event; one in ten is none, or lacks something."""
    does = {
        name: (did := rng.choice(list(DOES)), rng.choice(ERRORS) if did == "raises" else value)
        for name in ("plain", "waiting", "by_document")
        if rng.random() < 0.6
        for value in [odd_value(rng)]
    }
    student: Any = rng.choice(STUDENTS)
    document: Any = rng.choice(("d1", "d2", 7, None))
    if rng.random() < 0.1:
        student = rng.choice((7, None, OddText("s1"), b"s1", 1.5, "s" * 70_000, True))
        document = rng.choice((10**30, OddText("d1"), OddBytes(b"d1"), 0.1, [1], "d," * 3))
    client: Any = {"event": "type", "does": does, "doc_id": document}
    auth: Any = {"safe_user_id": student}
    event: Any = {"n": number, "client": client, "metadata": {"source": "source", "auth": auth}}
    if rng.random() < 0.1:
        broken: Any = rng.choice((None, 7, [], "text", OddDict(), {}))
        where = rng.choice(("event", "client", "name", "metadata", "source", "auth"))
        if where == "event":
            return broken
        inside = {"name": client, "source": event["metadata"], "auth": event["metadata"]}
        inside.get(where, event)["event" if where == "name" else where] = broken
    return OddDict(event) if rng.random() < 0.05 else event


ERRORS: Sequence[Exception] = (
    OddError("of its own"),
    ValueError("a value"),
    StopIteration(3),
    KeyError("key"),
    RuntimeError("a reducer without an `await` waits all the same"),
)


async def one_run(seed: int) -> dict[str, Any]:
    """Everything that can be seen of the run: answers, errors, calls, and the final texts."""
    from lo_kvs.kvs import Change, Guard, InMemoryKVS
    from lo_kvs.settings import load_settings
    from lo_kvs.stream_analytics.pipeline import Pipeline

    class OddStore(InMemoryKVS):
        """Returns bytes that are not exactly `bytes`, now and then."""

        async def read(self, keys: Any, *, deadline: Any = None) -> Any:
            found = await super().read(keys, deadline=deadline)
            return [OddBytes(each) if each and odd_bytes else each for each in found]

    rng = random.Random(seed)
    odd_bytes = rng.random() < 0.2
    load_settings({"reducers": {"cache_bytes": rng.choice((0, 500, 10**6)), "waiting_events": 9}})
    calls: list[str] = []
    pipeline = Pipeline(odd_reducers(rng, calls))
    seen: list[Any] = []
    events = [odd_event(rng, number) for number in range(EVENTS)]
    async with OddStore() as store:
        while events:
            size = rng.randint(1, 6)
            some, events = events[:size], events[size:]
            way = rng.choice(("one", "at once", "batch", "outside"))
            if way == "outside":
                for key in [key async for key in store.scan()]:
                    if rng.random() < 0.3:
                        data = rng.choice((None, b'{"n":5}', b"not JSON", b'{"n":1e999}', b"0"))
                        await store.commit([Change(key, Guard.ANY, {key: data})])
            elif way == "batch":
                seen.append(_shown(await pipeline.process_batch(some, store=store)))
            elif way == "at once":
                waiting = [pipeline.process(event, store=store) for event in some]
                seen.append(_shown(await asyncio.gather(*waiting, return_exceptions=True)))
            else:
                outcomes = [await _outcome(pipeline.process(event, store=store)) for event in some]
                seen.append(_shown(outcomes))
        texts = {key: str((await store.read([key]))[0]) async for key in store.scan()}
    return {"seed": seed, "seen": seen, "calls": calls, "texts": dict(sorted(texts.items()))}


async def _outcome(waiting: Any) -> Any:
    try:
        return await waiting
    except Exception as error:  # noqa: BLE001 - what is compared is the error
        return error


def _shown(answers: Sequence[Any]) -> list[str]:
    """Answers and errors as text, without the addresses of objects."""
    return [
        f"{type(each).__name__}: {each}" if isinstance(each, BaseException) else repr(each)
        for each in answers
    ]


def results(seeds: range) -> list[dict[str, Any]]:
    return [asyncio.run(one_run(seed)) for seed in seeds]


def form() -> str:
    """Which form runs: compiled, pure, or a mix, with the compiled modules."""
    from lo_kvs import compiled

    names = [name for name in compiled.MODULES if name in sys.modules]
    pure = [name for name in names if str(sys.modules[name].__file__).endswith(".py")]
    if "lo_kvs.kvs.codec._c" not in names and len(pure) == len(names) and len(names) > 10:
        return "pure"
    return "compiled" if len(names) == len(compiled.MODULES) and not pure else f"mixed: {names}"


def write(report: object) -> None:
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


class Warnings(logging.Handler):
    """Keeps the texts of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def without_each(folder: Path) -> None:
    """Take each compiled module away from the copy in `folder`, one at a time, and run."""
    import hiredis  # noqa: F401 - what a process needs besides, once for all of them
    import orjson  # noqa: F401
    import redis.asyncio.cluster  # noqa: F401

    for file in sorted(folder.rglob("*.so")):
        away = file.rename(file.with_suffix(".away"))
        child = os.fork()
        if child == 0:
            warnings = Warnings()
            logging.getLogger().addHandler(warnings)
            found = {"results": results(range(3)), "form": form(), "warnings": warnings.texts}
            write({"without": file.name, **found})
            os._exit(0)
        _, status = os.waitpid(child, 0)
        away.rename(file)
        if status:
            raise SystemExit(f"the run without {file.name} ended with status {status}")


if __name__ == "__main__":
    if sys.argv[1] == "--each":
        without_each(Path(sys.argv[2]))
    else:
        for result in results(range(int(sys.argv[1]), int(sys.argv[2]))):
            write(result)
        write(form())
