"""The contract on a server in another region: it must not require a fast store.

Of its tests, those in which many calls wait for each other, or in which time plays a part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis
from tests.kvs.redis_places import settings_for

from lo_kvs.kvs import PersistentRedisKVS, Store
from lo_kvs.testing import Fault, FaultProxy, RedisServer, StoreContract

_numbers: Final = itertools.count()


class FarAway(StoreContract):
    """The contract's tests that these classes do not take over are not run here."""

    __test__ = False


@pytest.mark.parametrize("latency_ms", [5, 80, 300])
class TestFarAway:
    @pytest.fixture
    def far(self, redis_server: RedisServer, latency_ms: int) -> Iterator[FarAway]:
        """The contract for a store whose every request takes so long to arrive."""
        proxy = FaultProxy(
            "127.0.0.1", redis_server.port, faults={Fault.STALL: 1.0}, stall_s=latency_ms / 1000
        )
        prefix = f"far {next(_numbers)}:"
        with proxy.run_in_thread(), redis.Redis.from_url(redis_server.url) as client:

            class Far(FarAway):
                reopens = True
                updates_per_writer = 1

                def make_store(self) -> Store:
                    return PersistentRedisKVS(prefix=prefix, connection=settings_for(proxy.port))

                def raw_get(self, key: str) -> bytes | None:
                    data: Any = client.get(prefix + key)
                    return data  # type: ignore[no-any-return]

                def raw_set(self, key: str, data: bytes) -> None:
                    client.set(prefix + key, data)

            yield Far()

    def test_deadlines(self, far: FarAway) -> None:
        far.test_deadlines_are_for_stores_that_do_not_answer()

    def test_order(self, far: FarAway) -> None:
        far.test_submitted_changes_of_one_guard_are_made_in_order()

    def test_callers_that_are_cancelled(self, far: FarAway) -> None:
        far.test_cancelled_callers_disturb_nobody()
        far.test_callers_that_time_out_leave_the_store_usable()

    def test_large_value(self, far: FarAway) -> None:
        far.test_large_value()

    def test_writers(self, far: FarAway) -> None:
        far.test_one_of_many_wins_an_absent_key()
        far.test_updates_of_many_writers_all_count()
