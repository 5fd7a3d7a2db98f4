"""How `make test` runs on several processes: the tests that wait on the clock first, then the rest.

A test that waits (for a deadline, a failover, a server that is down) needs hardly any processor,
so many of them run side by side. They are in the files that `WAITING` names; each is handed out
alone. The other tests are handed out a file at a time, so that one process starts what a file
needs, and only as many of them run at once as there are cores: a worker takes a turn for each.

`pytest -n auto` does all of this. Without `-n` the tests run one by one, in the usual order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.workermanage import WorkerController

#: Files whose tests mostly wait on the clock, those with the longest tests first. `--durations=0`
#: beside `time` shows them; a file that is not named here costs time, and nothing else.
WAITING: Final = (
    "tests/faults/test_sentinel_failover.py",
    "tests/faults/test_nth_socket_call.py",
    "tests/faults/test_restarts.py",
    "tests/kvs/redis/test_cluster_deadlines.py",
    "tests/redis_connection/test_secrets.py",
    "tests/faults/test_promoted_replica.py",
    "tests/kvs/redis/test_cluster_faults.py",
    "tests/cli/test_ingest_endings.py",
    "tests/kvs/batching/test_deadlines_shared.py",
    "tests/kvs/batching/test_errors_deadlines.py",
    "tests/stream_analytics/engine/test_event_deadlines.py",
    "tests/faults/test_blocked_server.py",
    "tests/testing/servers/test_sentinel.py",
    "tests/redis_connection/test_tls_faults.py",
    "tests/cli/test_ingest_command.py",
    "tests/faults/test_loading_server.py",
    "tests/faults/test_hostile_connections.py",
    "tests/kvs/batching/test_deadline_rules.py",
    "tests/redis_connection/test_echoed_secrets.py",
    "tests/redis_connection/test_sentinels.py",
    "tests/kvs/checks/test_server_checks.py",
    "tests/redis_connection/test_handshake.py",
    "tests/kvs/redis/test_odd_replies.py",
    "tests/kvs/redis/test_durability.py",
    "tests/kvs/test_cancelled_tasks.py",
    "tests/kvs/redis/test_redis_faults.py",
)
#: Files that compute for long, so that none of them is left for one core at the end.
LONG: Final = (
    "tests/packaging/test_installs.py",
    "tests/kvs/test_contract.py",
    "tests/faults/test_moving_slots.py",
    "tests/kvs/codec/test_law.py",
    "tests/cli/test_copy_command.py",
    "tests/faults/test_withheld_rights.py",
    "tests/cli/test_store_commands.py",
)
#: More of them wait at once with more workers, but each one collects all tests: 8 s of a core.
WORKERS_PER_CORE: Final = 3
_RANK: Final = {file: rank for rank, file in enumerate((*WAITING, *LONG))}
_TURNS: Final = "lokvs_turns"  # the folder of the turns, as a worker gets it


def cores() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def file_of(nodeid: str) -> str:
    """The file of a test, as `WAITING` names it."""
    return nodeid.partition("::")[0]


class WaitingFirst(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands out each waiting test alone, and all others by file."""

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return nodeid if file in WAITING else file


class Parallel:
    """The plugin. On the workers it sorts the tests and takes turns; the others start them."""

    def __init__(self, config: pytest.Config) -> None:
        told: dict[str, Any] = getattr(config, "workerinput", {})
        self._turn: Path | None = None
        self._turns: str | None = None
        if told:
            number = int(str(told["workerid"]).removeprefix("gw"))
            self._turn = Path(told[_TURNS], str(number % cores()))
        elif getattr(config.option, "numprocesses", None):
            config.option.loadscopereorder = False  # the order of `pytest_collection_modifyitems`
            self._turns = tempfile.mkdtemp(prefix="lokvs-turns-")

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config, log: Producer
    ) -> LoadScopeScheduling:
        return WaitingFirst(config, log)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput[_TURNS] = self._turns

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._turn is not None:  # the sort is stable: the rest keeps its order
            items.sort(key=lambda item: _RANK.get(file_of(item.nodeid), len(_RANK)))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        with self._a_turn(item.nodeid):
            return (yield)

    @contextlib.contextmanager
    def _a_turn(self, nodeid: str) -> Iterator[None]:
        """Wait for the turn of a test that computes; a worker that dies gives its turn back."""
        if self._turn is None or file_of(nodeid) in WAITING:
            yield
            return
        with self._turn.open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield

    def pytest_unconfigure(self) -> None:
        if self._turns is not None:
            shutil.rmtree(self._turns, ignore_errors=True)
