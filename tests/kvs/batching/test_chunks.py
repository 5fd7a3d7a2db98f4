"""Calls of many chunks on a store that cannot be reached: which chunks are still sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from lo_kvs.kvs import Change, InMemoryKVS, Outcome, TimedOut

KEYS = {f"key {n}": n for n in range(3_000)}


class UnreachableKVS(InMemoryKVS):
    """No commit reaches it."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.sent: list[str] = []

    def fails_as_a_whole(self) -> bool:
        return self.whole

    async def commit(
        self, changes: Sequence[Change], *, deadline: float | None = None
    ) -> list[Outcome]:
        self.sent += [change.guard for change in changes]
        return [TimedOut("no reply")] * len(changes)


@pytest.mark.parametrize("whole", [True, False], ids=["one server", "a cluster"])
def test_chunks_are_sent_after_a_lost_one_only_if_others_may_accept_them(whole: bool) -> None:
    store = UnreachableKVS(whole=whole)
    with pytest.raises(TimedOut):
        asyncio.run(store.multiset(KEYS))
    assert store.sent[0] == "key 0"
    assert (len(store.sent) < len(KEYS)) == whole
