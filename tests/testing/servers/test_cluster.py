"""The cluster that tests are given: every slot served, and slots that move with their keys."""

from __future__ import annotations

import hiredis
import pytest

from lo_kvs.testing import ClusterServers


def test_every_slot_is_served_by_the_node_that_it_says(cluster: ClusterServers) -> None:
    served = {cluster.node_of(slot) for slot in range(16_384)}
    assert served == {0, 1, 2}
    for at in range(100):
        name = f"key {at}".encode()
        assert cluster.on(name, "SET", at) == b"OK"
        assert cluster.ask(0, "CLUSTER", "KEYSLOT", name) == cluster.slot_of(name)
    assert sum(cluster.ask(node, "DBSIZE") for node in range(3)) == 100


def test_slot_moves_with_its_keys_and_their_ttls(cluster: ClusterServers) -> None:
    names = [f"{{tag}}{at}".encode() for at in range(250)]
    slot = cluster.slot_of(names[0])
    for name in names:
        cluster.on(name, "SET", name, "PX", 60_000)
    for _ in range(4):
        old, new = cluster.node_of(slot), (cluster.node_of(slot) + 1) % 3
        seen: list[object] = []

        def while_moved(old: int = old, seen: list[object] = seen) -> None:
            with pytest.raises(hiredis.ReplyError, match="ASK"):
                cluster.ask(old, "GET", names[0])
            seen.append(cluster.node_of(slot))

        assert cluster.move_slot(slot, new, while_moved=while_moved) == 250
        assert seen == [old]
        assert cluster.node_of(slot) == new
        for node in {0, 1, 2} - {new}:
            with pytest.raises(hiredis.ReplyError, match=f"MOVED {slot}"):
                cluster.ask(node, "GET", names[0])
        assert [cluster.ask(new, "GET", name) for name in names] == names
        assert 0 < cluster.ask(new, "PTTL", names[0]) <= 60_000


def test_flush_removes_every_key(cluster: ClusterServers) -> None:
    for at in range(20):
        cluster.on(f"key {at}".encode(), "SET", at)
    cluster.flush()
    assert [cluster.ask(node, "DBSIZE") for node in range(3)] == [0, 0, 0]
