"""A setting with stores on a cluster of three nodes, and one on a single server."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Self

from benchmarks.setting import Setting, no_miscount
from lo_kvs.kvs import codec
from lo_kvs.kvs.redis.key_names import cluster_name
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.cluster import ClusterServers


@dataclasses.dataclass(kw_only=True)
class ClusterSetting(Setting):
    """As large as another setting, on the same cores; `server` and `client` are that one's."""

    cluster: ClusterServers

    @classmethod
    @contextlib.contextmanager
    def beside(cls, setting: Setting) -> Iterator[Self]:
        """A setting on a new cluster of three real processes, which end with it."""
        size = {each.name: getattr(setting, each.name) for each in dataclasses.fields(setting)}
        with ClusterServers() as cluster:
            yield cls(**size, cluster=cluster)

    def where(self, database: int = 0) -> RedisSettings:
        if database:
            raise ValueError("a cluster has one database")
        return RedisSettings(cluster=True, nodes=self.cluster.nodes)

    async def fresh(self) -> None:
        self.cluster.flush()

    async def check_count(self, name: str, keys: Iterable[str], sent: int) -> None:
        found = 0
        for key in keys:
            text = self.cluster.on(cluster_name(key).encode(), "GET")
            state: Any = {"count": 0} if text is None else codec.decode(text)
            found += state["count"]
        no_miscount(name, sent, found)
