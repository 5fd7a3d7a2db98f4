"""Test tools for programs that use or extend the package.

    StoreContract   the contract of every store as tests: subclass it for your own store
    RedisServer     a real server for a test run
    ClusterServers  a real cluster, with slots that can be moved
    FaultProxy      a proxy between a client and a server that injects faults
    follow, promote, cut_off, wait_until_replicated
                    replicas of such servers, failovers and partitions
    TLSProxy        TLS in front of a server that was built without it
    SentinelSetup   a primary, replicas, and Sentinels that watch them

`StoreContract` needs pytest; the others need nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lo_kvs.testing.contract import StoreContract
    from lo_kvs.testing.faults.proxy import Fault, FaultProxy
    from lo_kvs.testing.servers.cluster import ClusterServers
    from lo_kvs.testing.servers.replication import (
        ReplicationFailed,
        cut_off,
        follow,
        promote,
        wait_until_replicated,
    )
    from lo_kvs.testing.servers.sentinel import SentinelSetup
    from lo_kvs.testing.servers.server import NoRedisServer, RedisServer
    from lo_kvs.testing.servers.tls import TLSProxy

__all__ = [
    "ClusterServers",
    "Fault",
    "FaultProxy",
    "NoRedisServer",
    "RedisServer",
    "ReplicationFailed",
    "SentinelSetup",
    "StoreContract",
    "TLSProxy",
    "cut_off",
    "follow",
    "promote",
    "wait_until_replicated",
]

_MODULES: Final = {
    "ClusterServers": "servers.cluster",
    "Fault": "faults.proxy",
    "FaultProxy": "faults.proxy",
    "NoRedisServer": "servers.server",
    "RedisServer": "servers.server",
    "ReplicationFailed": "servers.replication",
    "SentinelSetup": "servers.sentinel",
    "StoreContract": "contract",
    "TLSProxy": "servers.tls",
    "cut_off": "servers.replication",
    "follow": "servers.replication",
    "promote": "servers.replication",
    "wait_until_replicated": "servers.replication",
}


def __getattr__(name: str) -> Any:
    # Imported lazily, so that servers can be used without pytest.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
