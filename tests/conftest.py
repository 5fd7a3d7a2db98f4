"""What every folder of tests may ask for: a Redis server of this run's own, and its address."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import hypothesis
import pytest
import redis
from tests import busy
from tests.faults import summary
from tests.parallel import WORKERS_PER_CORE, Parallel, cores

from lo_kvs.testing.servers.cluster import ClusterServers
from lo_kvs.testing.servers.server import RedisServer

# The real logs are no part of the project. `make real-logs LOGS=...` names their folder; without
# it the file is not collected at all, so that no test is ever reported as skipped.
collect_ignore = [] if os.environ.get("LOKVS_REAL_LOGS") else ["test_real_logs.py"]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` means. It is asked for before `pytest_configure`."""
    return WORKERS_PER_CORE * cores()


def pytest_configure(config: pytest.Config) -> None:
    """Register what spans all processes of a run, see tests/parallel.py."""
    config.pluginmanager.register(summary)
    config.pluginmanager.register(Parallel(config))


# No deadline: two cores, shared with a server, make single examples slow at random.
# In CI the examples are the same in every run: what fails there fails again.
hypothesis.settings.register_profile(
    "lokvs", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("lokvs")


def pytest_collection_finish() -> None:
    """Leave what was collected out of garbage collection.

    With 7,000 tests in memory a full collection takes longer than the grace of some deadlines.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Count anew how long this process waits for a core, see tests/busy.py."""
    busy.test_begins()


@pytest.fixture(scope="session")
def shared_server() -> Iterator[RedisServer]:
    """The server that the tests of one process share, with whatever they left there."""
    # With a save point that is never reached: startup finds nothing to warn of.
    with RedisServer("--save", "3600", "1000000000") as server:
        yield server


@pytest.fixture
def redis_server(shared_server: RedisServer) -> RedisServer:
    """The shared server, emptied for this test. Stop or restart one of your own instead."""
    # Everything may go, other databases too: RedisServer made sure that this is our own process.
    with redis.Redis.from_url(shared_server.url) as client:
        client.flushall()
    return shared_server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The address of the shared server, emptied for this test."""
    return redis_server.url


@pytest.fixture(scope="session")
def cluster_servers() -> Iterator[ClusterServers]:
    """The cluster that the tests of one run share. Kill nodes of one of your own instead."""
    with ClusterServers() as cluster:
        yield cluster


@pytest.fixture
def cluster(cluster_servers: ClusterServers) -> ClusterServers:
    """The shared cluster, emptied for this test."""
    cluster_servers.flush()
    return cluster_servers
