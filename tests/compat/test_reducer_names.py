"""The shipped reducers had keys under `learning_observer.reducers`: what to do with such states.

Both ways are described in CHANGELOG.md.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lo_kvs import reducers
from lo_kvs.kvs import InMemoryKVS, Store
from lo_kvs.stream_analytics.helpers import kvs_pipeline
from lo_kvs.stream_analytics.pipeline import Pipeline

FORMER = "learning_observer.reducers"
EVENTS: list[dict[str, Any]] = [
    json.loads(line.partition("\t")[0])
    for line in (Path(__file__).parents[1] / "data/pair.study.log").read_text().splitlines()
]


def under_old_names() -> SimpleNamespace:
    """A module of one's own, with the shipped reducers under the names that they had."""
    return SimpleNamespace(
        __name__="old_names",
        REDUCERS=[
            entry
            | {
                "function": kvs_pipeline(
                    null_state=entry["default"],
                    scope=entry["scope"],
                    module_override=entry["function"].__module__.replace("lo_kvs.reducers", FORMER),
                )(inspect.unwrap(entry["function"]))
            }
            for entry in reducers.REDUCERS
        ],
    )


async def ingest(module: Any, store: Store) -> dict[str, Any]:
    pipeline = Pipeline(module.REDUCERS)
    assert await pipeline.process_batch(EVENTS, store=store) == [None] * len(EVENTS)
    return await store.dump()


def renamed(states: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    return {key.replace(f",{old}.", f",{new}.", 1): state for key, state in states.items()}


def test_states_under_old_names_go_on_with_module_override() -> None:
    async def main() -> None:
        store = InMemoryKVS()
        once = await ingest(under_old_names(), store)
        assert all(f",{FORMER}." in key for key in once)
        assert renamed(once, FORMER, "lo_kvs.reducers") == await ingest(reducers, InMemoryKVS())
        twice = await ingest(under_old_names(), store)
        assert twice.keys() == once.keys()
        key = f"Internal,{FORMER}.activity.event_count,STUDENT:sim-student-001"
        assert twice[key] == {"count": 2 * once[key]["count"]}

    asyncio.run(main())


def test_states_go_on_under_new_names_after_a_dump_and_a_load(tmp_path: Path) -> None:
    async def main() -> None:
        store = InMemoryKVS()
        once = await ingest(under_old_names(), store)
        await store.dump(str(tmp_path / "old.json"))
        dumped = json.loads((tmp_path / "old.json").read_text())
        (tmp_path / "new.json").write_text(json.dumps(renamed(dumped, FORMER, "lo_kvs.reducers")))
        await store.load(str(tmp_path / "new.json"))
        everything = await ingest(reducers, store)
        key = "Internal,lo_kvs.reducers.activity.event_count,STUDENT:sim-student-001"
        assert everything[key] == {
            "count": 2 * everything[key.replace("lo_kvs.reducers", FORMER)]["count"]
        }
        assert once.items() <= everything.items()  # the old ones stay

    asyncio.run(main())
