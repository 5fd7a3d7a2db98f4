"""Worker processes that count while something disturbs them: what they say, and what stands."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.faults.stored import stored_counts
from tests.faults.worker import COUNTERS, STUDENTS, key_of
from tests.faults.workers import WAIT_MAX_S, Worker, released, tell, totals

from lo_kvs.kvs import KVSError, OutcomeUnknown, Refused, Unavailable
from lo_kvs.testing.faults.proxy import Fault, FaultProxy
from lo_kvs.testing.servers.server import RedisServer

KEYS: Final = (*COUNTERS, *(key_of(student) for student in STUDENTS))
#: The faults after which the server has acted and no client has the reply.
LOST_REPLIES: Final = (
    Fault.CUT_AFTER,
    Fault.SWALLOW_CLOSE,
    Fault.SWALLOW_STALL,
    Fault.CUT_REPLY,
    Fault.HALF_CLOSE,
)


@dataclass
class Counted:
    """What came of it.

    acknowledged, stored  by key: how often workers were told "done", and what the store holds
    errors                what workers met instead, by its text
    faults                what struck their requests, where there was a proxy
    """

    acknowledged: Counter[str]
    errors: Counter[str]
    stored: dict[str, int]
    faults: Counter[Fault] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        """How many replies were lost of what the server did."""
        return sum(self.faults[fault] for fault in LOST_REPLIES)


def is_commit(request: bytes) -> bool:
    """Whether it makes changes: by the script, or by a transaction, of which it may be a look."""
    return b"EVAL" in request or b"WATCH" in request or b"MULTI" in request


def count_while(
    disturb: Callable[[], object],
    server: RedisServer,
    *,
    processes: int,
    url: str | None = None,
    **options: object,
) -> Counted:
    """Let so many workers count until `disturb` returns; `url` is their way to the server."""
    workers = [Worker("count", url or server.url, **options) for _ in range(processes)]
    with released(workers):
        disturb()
        for worker in workers:
            worker.stop()
        acknowledged, errors = totals([worker.report() for worker in workers])
    return Counted(acknowledged, errors, stored_counts(server.url, KEYS))


def count_through_proxy(
    server: RedisServer,
    *,
    seed: int,
    faults: int,
    kinds: Mapping[Fault, float],
    processes: int,
    only: Callable[[bytes], bool] | None = None,
    records: str = "on",
    scripts: str = "on",
) -> Counted:
    """Let workers count behind a proxy until so many faults have struck them.

    With `scripts` off all commits go by transactions, as those of large values do.
    """
    proxy = FaultProxy("127.0.0.1", server.port, seed=seed, faults=kinds, only=only, stall_s=0.05)
    start = time.monotonic()

    def until_struck() -> None:
        while proxy.counts.total() < faults:
            assert time.monotonic() < start + WAIT_MAX_S, f"only {proxy.counts} till now"
            time.sleep(0.01)

    with proxy.run_in_thread():
        # A reply that is late by 0.3 s is given up: a stall is no fault for the store then.
        counted = count_while(
            until_struck,
            server,
            processes=processes,
            url=proxy.url,
            timeout=0.3,
            records=records,
            scripts=scripts,
        )
    counted.faults.update(proxy.counts)
    tell(
        f"seed {seed}, records {records}, scripts {scripts}: {counted.faults.total()} faults "
        f"{ {str(fault): count for fault, count in sorted(counted.faults.items())} } "
        f"in {proxy.requests} requests, {time.monotonic() - start:.1f} s; "
        f"acknowledged {dict(counted.acknowledged)}, stored {counted.stored}, "
        f"errors {counted.errors}"
    )
    return counted


def kind_of(error: KVSError) -> str:
    """Which of the answers to a call that failed this is, whatever the cause has for a name."""
    kinds = (Unavailable, Refused, OutcomeUnknown)
    return next((kind.__name__ for kind in kinds if isinstance(error, kind)), type(error).__name__)
