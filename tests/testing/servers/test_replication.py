"""The helpers for replicas: what they say has happened has happened."""

from __future__ import annotations

import pytest
import redis

from lo_kvs.testing import (
    RedisServer,
    ReplicationFailed,
    cut_off,
    follow,
    promote,
    wait_until_replicated,
)
from lo_kvs.testing.servers.replication import replication


def test_follow_cut_off_and_promote() -> None:
    with (
        RedisServer() as one,
        RedisServer() as other,
        redis.Redis.from_url(one.url) as primary,
        redis.Redis.from_url(other.url) as replica,
    ):
        primary.set("key", "before")
        replica.set("own", "gone once it follows")
        follow(other, one)
        assert (replica.get("key"), replica.get("own")) == (b"before", None)
        assert replication(other)["role"] == "slave"
        primary.set("key", "after")
        wait_until_replicated(one, other)
        assert replica.get("key") == b"after"
        with pytest.raises(redis.ReadOnlyError):
            replica.set("key", "refused")
        with cut_off(other):
            primary.set("key", "unheard of")
            assert replica.get("key") == b"after"
            promote(other)
            replica.set("key", "of the new primary")
        follow(one, other)
        assert primary.get("key") == b"of the new primary"


def test_follow_with_a_password() -> None:
    word = "a-word"
    with (
        RedisServer(password=word) as one,
        RedisServer("--masterauth", word, password=word) as other,
    ):
        follow(other, one)
        assert replication(one)["connected_slaves"] == "1"


def test_an_error_reply_is_reported() -> None:
    with (
        RedisServer() as one,
        RedisServer("--rename-command", "REPLICAOF", "") as other,
        pytest.raises(ReplicationFailed, match=f"REPLICAOF .*{other.port}: -ERR unknown command"),
    ):
        follow(other, one)
