# pyright: reportUnnecessaryTypeIgnoreComment=true
"""What a type checker accepts, and what it must report.

Each line with an `ignore` must be an error: mypy (warn_unused_ignores) and pyright report an
ignore that is not needed. test_typing.py runs both on this file; nothing here is executed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, assert_type

import lo_kvs
from lo_kvs.stream_analytics.helpers import Process


async def stores() -> None:
    store = lo_kvs.KVS()
    assert_type(store, lo_kvs.Store)
    await store.update("count", lambda n: (n or 0) + 1)
    count: int = await store.update("count", lambda n: (n or 0) + 1)
    await store.set("count", count)
    await store.set("object", {"a": [1, None, {"b": 2.5}]})
    assert_type(await store.exists("count"), bool)
    assert_type(await store.keys(), list[str])
    value: dict[str, int] = await store["object"]
    del value

    await store.set("bytes", b"no JSON")  # type: ignore[arg-type]
    await store.set(1, "key")  # type: ignore[arg-type]
    await store.gett("count")  # type: ignore[attr-defined]
    await store.update("count", 1)  # type: ignore[arg-type]


async def operators(store: lo_kvs.Store) -> None:
    # `"count" in store` is an error for mypy alone: pyright sees `__getitem__`, and accepts it.
    len(store)  # type: ignore[arg-type]
    store["count"] = 1  # type: ignore[index]
    del store["count"]  # type: ignore[attr-defined]


def routers() -> None:
    # The names are those of the configuration, which a type checker does not read.
    assert_type(lo_kvs.KVS.any_name(), lo_kvs.Store)


@lo_kvs.student_event_reducer(null_state={"count": 0})
async def counted(event: Any, state: Any) -> tuple[Any, Any]:
    state["count"] += 1
    return state, {"count": state["count"]}


@lo_kvs.student_event_reducer
async def bare(event: dict[str, Any], state: Any) -> tuple[Any, Any]:
    return event, state


@lo_kvs.kvs_pipeline
async def bare_too(event: Any, state: Any) -> tuple[Any, Any]:
    return event, state


async def reducers() -> None:
    for reducer in (counted, bare, bare_too):
        process = await reducer({"auth": {"safe_user_id": "s1"}})
        assert_type(process, Process)
        await process({"client": {}}, {"doc_id": "d1"})


def parameter(function: Callable[[Any, Any], Awaitable[tuple[Any, Any]]]) -> None:
    lo_kvs.kvs_pipeline(null_state=0)(function)
    lo_kvs.kvs_pipeline(null_state=object())  # type: ignore[call-overload]
