"""What a new user sees at the prompt: `repr`, `inspect`, decorators without parentheses, `len`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lo_kvs import (
    EphemeralRedisKVS,
    FilesystemKVS,
    InMemoryKVS,
    KVSRouter,
    PersistentRedisKVS,
    RedisSettings,
    Store,
    kvs_pipeline,
    student_event_reducer,
)
from lo_kvs.kvs import KVS

SECRET = "hunter2"
URL = f"redis://alice:{SECRET}@example.org:6380/2"


async def count(event: Any, state: Any) -> tuple[Any, Any]:
    """Counts events."""
    state = {"n": (state or {"n": 0})["n"] + 1}
    return state, state


def stores(folder: Path) -> list[tuple[Store, str]]:
    settings = RedisSettings(url=URL, password=SECRET)
    return [
        (InMemoryKVS(), "<InMemoryKVS in this process, open>"),
        (FilesystemKVS(folder / "kvs"), f"<FilesystemKVS in {str(folder / 'kvs')!r}, open>"),
        (PersistentRedisKVS(), "<PersistentRedisKVS on the default connection, open>"),
        (
            PersistentRedisKVS(connection=settings, prefix="p:"),
            "<PersistentRedisKVS on example.org:6380, prefix 'p:', open>",
        ),
        (
            EphemeralRedisKVS(30, connection=settings),
            "<EphemeralRedisKVS on example.org:6380, expiry 30 s, open>",
        ),
    ]


def test_repr_of_a_store_says_what_where_and_whether_it_is_open(tmp_path: Path) -> None:
    for store, expected in stores(tmp_path):
        assert repr(store) == expected
        asyncio.run(store.aclose())
        assert repr(store) == expected.replace(", open>", ", closed>")


def test_repr_of_a_router_names_its_stores(tmp_path: Path) -> None:
    opened = dict(zip("abcde", [store for store, _ in stores(tmp_path)], strict=True))
    router = KVSRouter(InMemoryKVS(), opened)
    router.add_item("made", InMemoryKVS)
    text = repr(router)
    assert "default=<InMemoryKVS in this process, open>" in text
    assert "d=<PersistentRedisKVS on example.org:6380" in text
    assert "made=<class " in text
    assert SECRET not in text
    assert "alice" not in text
    assert repr(router.a) == "<call this to get <InMemoryKVS in this process, open>>"
    assert repr(KVSRouter()) == "<KVSRouter: no stores; call lo_kvs.configure() first>"


@pytest.mark.parametrize("used", [InMemoryKVS(), KVSRouter(InMemoryKVS())], ids=["store", "router"])
def test_len_names_the_call_to_make_and_truth_is_that_of_an_object(used: Any) -> None:
    with pytest.raises(TypeError, match=r"len\(await store\.keys\(\)\)"):
        len(used)
    assert used
    assert bool(used) is True


@pytest.mark.parametrize("decorator", [kvs_pipeline, student_event_reducer])
class TestDecorated:
    def test_inspect_sees_how_it_is_called(self, decorator: Callable[..., Any]) -> None:
        reducer = decorator(null_state={"n": 0})(count)
        signature = inspect.signature(reducer)
        assert list(signature.parameters) == ["metadata"]
        assert signature.bind({}).arguments == {"metadata": {}}
        assert signature.parameters["metadata"].default is None
        assert inspect.iscoroutinefunction(reducer)
        assert inspect.unwrap(reducer) is count
        assert (reducer.__name__, reducer.__module__) == ("count", count.__module__)
        assert reducer.__doc__ == "Counts events."

    def test_it_works_without_parentheses(self, decorator: Callable[..., Any]) -> None:
        async def scenario() -> None:
            KVS.add_item("default", InMemoryKVS())
            process = await decorator(count)({"auth": {"safe_user_id": "s1"}})
            assert await process({}) == {"n": 1}
            assert await process({}) == {"n": 2}

        try:
            asyncio.run(scenario())
        finally:
            KVS.remove_item("default")

    def test_a_function_with_other_arguments_is_explained(
        self, decorator: Callable[..., Any]
    ) -> None:
        with pytest.raises(TypeError, match=rf"write `@{decorator.__name__}\(null_state="):
            decorator(count, timeout=5)

    def test_a_plain_function_is_explained(self, decorator: Callable[..., Any]) -> None:
        with pytest.raises(TypeError, match="must be an `async def`"):
            decorator(lambda event, state: (state, state))
