"""For the tests of those who use or extend the package.

    StoreContract   what every store does, as tests: subclass it for a store of your own
    RedisServer     a real server for the time of a test run
    ClusterServers  a real cluster, with slots that can be moved
    FaultProxy      stands between a client and a server, and loses things on purpose

`StoreContract` needs pytest; the others need nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from learning_observer.testing.cluster import ClusterServers
    from learning_observer.testing.contract import StoreContract
    from learning_observer.testing.proxy import Fault, FaultProxy
    from learning_observer.testing.server import NoRedisServer, RedisServer

__all__ = [
    "ClusterServers",
    "Fault",
    "FaultProxy",
    "NoRedisServer",
    "RedisServer",
    "StoreContract",
]

_MODULES: Final = {
    "ClusterServers": "cluster",
    "Fault": "proxy",
    "FaultProxy": "proxy",
    "NoRedisServer": "server",
    "RedisServer": "server",
    "StoreContract": "contract",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: whoever wants a server only need not have pytest.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
