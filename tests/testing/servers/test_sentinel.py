"""Sentinels for tests: they know each other, choose a primary, and leave nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from lo_kvs.testing import NoRedisServer, SentinelSetup
from lo_kvs.testing.servers.server import PROGRAM_VARIABLE


def test_fails_over_and_cleans_up() -> None:
    with SentinelSetup(replicas=1, password="word", sentinel_password="other") as setup:
        first = setup.primary()
        with redis.Redis.from_url(first.url) as client:
            client.set("key", 1)
        setup.wait_until_in_step(1)
        setup.fail_over()
        assert setup.primary() is not first
        with redis.Redis.from_url(setup.primary().url) as client:
            assert client.get("key") == b"1"
        # A Sentinel that is started again knows what it knew.
        setup.sentinels[0].restart()
        assert setup.primary() is not first
        every = [*setup.servers, *setup.sentinels]
        pids = [server.pid for server in every]
        folders = [server.directory for server in every]
    assert not any(folder.exists() for folder in folders)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_started_servers_end_if_a_sentinel_fails_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from lo_kvs.testing.servers import sentinel

    setup = SentinelSetup(replicas=0, sentinels=1)
    monkeypatch.setattr(sentinel, "find_program", lambda: None)
    with pytest.raises(NoRedisServer, match="a container is not enough"):
        setup.__enter__()
    (server,) = setup.servers
    with pytest.raises(NoRedisServer, match="not running"):
        _ = server.pid
    monkeypatch.setenv(PROGRAM_VARIABLE, "/no/such/program")
    with pytest.raises(NoRedisServer, match="is not executable"):
        SentinelSetup().__enter__()
