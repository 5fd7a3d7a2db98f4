"""A second event loop runs inside the first one in the same thread, as in Jupyter."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from lo_kvs.kvs import FilesystemKVS, InMemoryKVS, PersistentRedisKVS, Store
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing import ClusterServers, RedisServer


def run_inside(work: Coroutine[Any, Any, object]) -> object:
    """Run `work` in a loop of its own while the running one pauses."""
    outer = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        with asyncio.Runner() as runner:
            return runner.run(asyncio.wait_for(work, 10))
    finally:
        asyncio._set_running_loop(outer)


def test_store_serves_both_loops(
    tmp_path: Path, redis_server: RedisServer, cluster: ClusterServers
) -> None:
    async def both(store: Store) -> None:
        await store.set("a", 1)
        assert run_inside(store.get("a")) == 1
        run_inside(store.set("a", 2))
        run_inside(store.update("a", lambda n: n))
        assert sorted(await store.keys()) == ["a"]
        assert await store["a"] == 2
        await store.aclose()

    async def main() -> None:
        await both(InMemoryKVS())
        await both(FilesystemKVS(tmp_path / "states", fsync=False))
        for where in (
            RedisSettings(port=redis_server.port, retry_for=3),
            RedisSettings(cluster=True, nodes=cluster.nodes, retry_for=3),
        ):
            await both(PersistentRedisKVS(prefix="n:", connection=where))

    asyncio.run(main())
