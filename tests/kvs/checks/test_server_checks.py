"""What a look at a Redis server finds, on real servers that have what is to be found."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from tests.busy import late
from tests.kvs.redis_places import closed_port, names

from lo_kvs import settings
from lo_kvs.kvs import KVS, InMemoryKVS, MissingKVSParameters, kvs_startup_check
from lo_kvs.kvs.checks.findings import (
    Finding,
    ServerReport,
    Severity,
    prefix_clashes,
)
from lo_kvs.kvs.checks.rules import version_of
from lo_kvs.kvs.checks.startup import look
from lo_kvs.kvs.configuration import Entry
from lo_kvs.testing.servers.server import RedisServer

OK, UNKNOWN, WARNING, ERROR = Severity.OK, Severity.UNKNOWN, Severity.WARNING, Severity.ERROR
#: A server that is as it should be, and writes nothing on disk in these tests.
SOUND = ("--save", "3600", "1000000000")
STATES = Entry("states", "redis", {"prefix": "states:"})
CACHE = Entry("cache", "redis_ephemeral", {"prefix": "cache:", "expiry": 30})


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(settings, "settings", {})
    yield
    asyncio.run(KVS.aclose())


def connect_to(url: str, *, user: str | None = None) -> None:
    login = {} if user is None else {"redis_username": user, "redis_password": "secret"}
    settings.settings["redis_connection"] = {"redis_url": url, **login}


def looked(url: str, *entries: Entry, user: str | None = None) -> ServerReport:
    """The report on the one server."""
    connect_to(url, user=user)
    (report,) = look(entries or [STATES, CACHE])
    return report


def found(report: ServerReport, check: str) -> Finding:
    """What a check found, which is one thing."""
    (finding,) = [each for each in report.findings if each.check == check]
    return finding


@contextmanager
def user_with(server: RedisServer, *rights: str) -> Iterator[str]:
    """A user of the server that has these rights, and the password `secret`."""
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", *rights)
        yield "app"
        client.execute_command("ACL", "DELUSER", "app")


# -- one finding after another ---------------------------------------------------------------


def test_sound_server(redis_server: RedisServer, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("persistence")["rdb_changes_since_last_save"]
        report = looked(redis_url)
        assert client.info("persistence")["rdb_changes_since_last_save"] == before
        assert names(client) == set()
    assert [str(finding) for finding in report.findings if finding.severity != OK] == []
    assert {finding.check for finding in report.findings} == {
        *("reachable", "version", "role", "Lua", "rights", "persistence", "saves", "eviction"),
        "large values",
    }
    assert report.ping_us is not None
    assert 0 < report.ping_us < 1e6
    assert report.script_us is not None
    assert report.reached


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_policy_that_evicts(policy: str) -> None:
    with RedisServer(*SOUND, "--maxmemory-policy", policy) as server:
        finding = found(looked(server.url), "eviction")
        assert finding.severity == WARNING
        assert finding.stores == ("states", "cache")
        assert f"maxmemory-policy is {policy}" in finding.what
        assert "(no `maxmemory` is set yet)" in finding.what
        assert "noeviction" in finding.fix


def test_keys_that_were_evicted() -> None:
    with (
        RedisServer(*SOUND, "--maxmemory-policy", "allkeys-lru") as server,
        redis.Redis.from_url(server.url) as client,
    ):
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 500_000)
        for number in range(200):
            client.set(f"key {number}", b"x" * 10_000)
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        report = looked(server.url)
        assert found(report, "eviction").severity == OK
        finding = found(report, "evicted keys")
        assert finding.severity == WARNING
        assert f"{client.info('stats')['evicted_keys']:,} keys were evicted" in finding.what


@pytest.mark.parametrize(
    ("arguments", "severity", "says"),
    [
        (("--appendonly", "no"), WARNING, "nothing is persisted"),
        (("--appendonly", "yes"), OK, "appendonly is on, appendfsync everysec"),
        (SOUND, OK, "snapshots are on (save 3600 1000000000)"),
    ],
)
def test_persistence(arguments: tuple[str, ...], severity: Severity, says: str) -> None:
    with RedisServer(*arguments) as server:
        report = looked(server.url)
        finding = found(report, "persistence")
        assert (finding.severity, finding.stores) == (severity, ("states",))
        assert says in finding.what
        # A cache need not survive.
        alone = looked(server.url, CACHE)
        assert alone.worst == OK
        assert "persistence" not in {each.check for each in alone.findings}


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_save_that_failed() -> None:
    with (
        RedisServer(*SOUND, "--dbfilename", "states.rdb") as server,
        redis.Redis.from_url(server.url) as client,
    ):
        (server.directory / "states.rdb").mkdir()  # a snapshot cannot be put there
        client.bgsave()
        until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        report = looked(server.url)
        finding = found(report, "saves")
        assert (finding.severity, finding.what) == (WARNING, "the last snapshot failed")
        # Where there are save points, one that failed stops all writes.
        finding = found(report, "writes")
        assert finding.severity == ERROR
        assert finding.what.startswith("it accepts no writes: MISCONF ")
        client.config_set("save", "")  # it would not end before it has saved


def test_no_memory_left() -> None:
    with RedisServer(*SOUND, "--maxmemory", "1000") as server:
        finding = found(looked(server.url), "writes")
        assert finding.severity == ERROR
        assert finding.what.startswith("it accepts no writes: OOM ")


def test_too_few_replicas() -> None:
    with RedisServer(*SOUND, "--min-replicas-to-write", "1") as server:
        finding = found(looked(server.url), "writes")
        assert finding.what.startswith("it accepts no writes: NOREPLICAS ")


def test_replica() -> None:
    with (
        RedisServer(*SOUND, "--repl-diskless-sync-delay", "0") as primary,
        RedisServer(*SOUND, "--replicaof", "127.0.0.1", str(primary.port)) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        until(lambda: client.info("replication")["master_link_status"] == "up")
        finding = found(looked(server.url), "role")
        assert finding.severity == ERROR
        assert finding.what == f"it is a replica of 127.0.0.1:{primary.port}: it accepts no writes"
        with user_with(server, "~*", "+@all", "-info") as user:  # HELLO says it as well
            finding = found(looked(server.url, user=user), "role")
        assert finding.severity == ERROR
        assert finding.what == "it is a replica: it accepts no writes"


def test_stores_without_clashes() -> None:
    assert prefix_clashes({"a": "a:", "b": "b:", "ab": "ab"}) == []
    assert prefix_clashes({"a": ""}) == []


@pytest.mark.parametrize(
    ("prefixes", "says"),
    [
        ({"a": "", "b": "b:"}, "a lists and clears the keys of b"),
        ({"b": "x:y:", "a": "x:"}, "a lists and clears the keys of b"),
        ({"a": "x:", "b": "x:"}, "a and b use one database with the prefix 'x:'"),
        ({"a": "", "b": ""}, "a and b use one database with no prefix"),
    ],
)
def test_prefixes_that_clash(prefixes: dict[str, str], says: str) -> None:
    (finding,) = prefix_clashes(prefixes)
    assert (finding.severity, finding.stores) == (WARNING, ("a", "b"))
    assert finding.what.startswith(says)


def test_clashes_are_part_of_the_report(redis_url: str) -> None:
    report = looked(redis_url, Entry("plain", "redis"), STATES)
    assert found(report, "prefixes").stores == ("plain", "states")
    assert looked(redis_url, STATES, CACHE).worst == OK


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("7.0.15", (7, 0, 15)),
        ("6.0.16", (6, 0, 16)),
        ("8.1", (8, 1, 0)),
        ("7.4.0-rc1", (7, 4, 0)),
        (None, None),
        ("unstable", None),
    ],
)
def test_versions(text: str | None, version: tuple[int, ...] | None) -> None:
    assert version_of(text) == version


# -- rights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rights", [("-config",), ("-info",), ("-@dangerous",), ("-ping", "-info")])
def test_hidden_information_is_not_an_error(redis_server: RedisServer, rights: Any) -> None:
    with user_with(redis_server, "~*", "+@all", *rights) as user:
        report = looked(redis_server.url, user=user)
    unknown = [finding for finding in report.findings if finding.severity == UNKNOWN]
    assert report.worst == UNKNOWN
    assert found(report, "version").severity == OK  # HELLO says it as well
    assert found(report, "role").severity == OK
    for finding in unknown:
        assert finding.what.startswith("could not determine whether ")
        assert "NOPERM" in finding.what
    if "-config" in rights:
        assert [finding.check for finding in unknown] == ["persistence"]
    else:
        assert [finding.check for finding in unknown] == ["INFO"]


def test_nothing_but_the_needed_rights(redis_server: RedisServer) -> None:
    needed = ["+eval", "+evalsha", "+get", "+mget", "+set", "+mset", "+unlink", "+type", "+scan"]
    useful = ["+watch", "+unwatch", "+copy"]  # and MULTI and EXEC, whose lack shows at a commit
    with user_with(redis_server, "~states:*", "~__lokvs:*", *needed, *useful) as user:
        report = looked(redis_server.url, STATES, user=user)
        assert report.worst == UNKNOWN
        assert found(report, "rights").severity == OK
        assert found(report, "large values").what == "written with WATCH/MULTI"
    for command in needed:
        fewer = [each for each in [*needed, *useful] if each != command]
        with user_with(redis_server, "~states:*", "~__lokvs:*", *fewer) as user:
            report = looked(redis_server.url, STATES, user=user)
        (finding,) = [each for each in report.findings if each.severity == ERROR]
        assert finding.check == ("Lua" if command.startswith("+eval") else "rights")
        assert command.removeprefix("+").upper() in finding.what
        assert command in finding.fix
    for command in useful:
        fewer = [each for each in [*needed, *useful] if each != command]
        with user_with(redis_server, "~states:*", "~__lokvs:*", *fewer) as user:
            finding = found(looked(redis_server.url, STATES, user=user), "large values")
        assert finding.severity == OK
        assert f"no right to {command.removeprefix('+').upper()} (" in finding.what


@pytest.mark.parametrize(
    ("patterns", "lacking", "stores"),
    [
        (("~states:*", "~cache:*"), "~__lokvs:*", ("states", "cache")),
        (("~states:*", "~__lokvs:*"), "~cache:*", ("cache",)),
        (("~cache:*", "~__lokvs:*"), "~states:*", ("states",)),
    ],
)
def test_key_patterns(
    redis_server: RedisServer, patterns: Any, lacking: str, stores: tuple[str, ...]
) -> None:
    with user_with(redis_server, "+@all", *patterns) as user:
        report = looked(redis_server.url, user=user)
    finding = found(report, "rights")
    assert (finding.severity, finding.stores) == (ERROR, stores)
    assert f"ACL SETUSER … {lacking})" in finding.fix
    assert "NOPERM" in finding.what


def test_store_without_prefix_and_a_user_with_patterns(redis_server: RedisServer) -> None:
    with user_with(redis_server, "+@all", "~app:*", "~__lokvs:*") as user:
        finding = found(looked(redis_server.url, Entry("plain", "redis"), user=user), "rights")
    assert finding.severity == ERROR
    assert "give the store a `prefix`" in finding.fix
    # Reducers' keys are allowed, and that is what such a store is for.
    with user_with(redis_server, "+@all", "~Internal,*", "~External,*", "~__lokvs:*") as user:
        report = looked(redis_server.url, Entry("plain", "redis"), user=user)
    assert report.worst == OK


def test_password_that_is_wrong() -> None:
    with RedisServer(*SOUND, password="right") as server:
        report = looked(server.url.replace("right", "wrong"))
    finding = found(report, "reachable")
    assert finding.severity == ERROR
    assert "check `redis_username` and `redis_password`" in finding.fix
    assert "wrong" not in str(finding).replace("WRONGPASS", "")


# -- clusters --------------------------------------------------------------------------------


def test_every_primary_of_a_cluster_is_looked_at() -> None:
    cluster = ("--cluster-enabled", "yes")
    with (
        RedisServer(*SOUND, *cluster) as one,
        RedisServer(*SOUND, *cluster, "--maxmemory-policy", "allkeys-lru") as two,
        redis.Redis.from_url(one.url) as first,
        redis.Redis.from_url(two.url) as second,
    ):
        for client, slots in ((first, range(8_192)), (second, range(8_192, 16_384))):
            client.execute_command("CLUSTER", "ADDSLOTS", *slots)
        first.execute_command("CLUSTER", "MEET", "127.0.0.1", two.port)
        for client in (first, second):
            until(lambda client=client: b"cluster_state:ok" in raw(client, "CLUSTER", "INFO"))  # type: ignore[misc]
        connect_to(one.url)
        reports = look([STATES, CACHE])
        assert {report.place: report.worst for report in reports} == {
            f"127.0.0.1:{one.port}": OK,
            f"127.0.0.1:{two.port}": WARNING,
        }
        assert found(reports[0], "rights").severity == OK


def raw(client: redis.Redis, *words: str) -> bytes:
    with client.pipeline(transaction=False) as pipeline:
        pipeline.execute_command(*words)  # type: ignore[no-untyped-call]
        (answer,) = pipeline.execute()
    assert isinstance(answer, bytes)
    return answer


# -- servers that do not answer --------------------------------------------------------------


def test_no_connection() -> None:
    start = time.monotonic()
    report = looked(f"redis://:secret@127.0.0.1:{closed_port()}/0")
    assert time.monotonic() - start < late(1)
    assert not report.reached
    (finding,) = report.findings
    assert (finding.severity, finding.stores) == (ERROR, ("states", "cache"))
    assert "cannot be reached" in finding.what
    assert "secret" not in str(report)


@pytest.mark.parametrize("accepts", [True, False])
def test_server_that_never_answers_costs_a_second(accepts: bool) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64 if accepts else 0) as silent:
        port = silent.getsockname()[1]
        waiting = [socket.socket() for _ in range(0 if accepts else 8)]
        for other in waiting:  # they take all places in the queue; who comes later hears nothing
            other.setblocking(False)
            other.connect_ex(("127.0.0.1", port))
        start = time.monotonic()
        report = looked(f"redis://127.0.0.1:{port}/0", STATES, CACHE)
        taken = time.monotonic() - start
        for other in waiting:
            other.close()
    assert not report.reached
    assert 0.9 < taken < late(2.5)


@pytest.mark.parametrize(
    "words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-\r\n", b"\xff" * 99, b""]
)
def test_other_server_than_redis_is_a_finding(words: bytes) -> None:
    def answer(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1_000)
            connection.sendall(words)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=[listening])
        thread.start()
        report = looked(f"redis://127.0.0.1:{listening.getsockname()[1]}/0")
        thread.join()
    assert found(report, "reachable").severity == ERROR


def test_foreign_script_that_blocks_the_server() -> None:
    with RedisServer(*SOUND, "--lua-time-limit", "50") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as blocking:
            blocking.sendall(b"EVAL 'while true do end' 0\r\n")
            time.sleep(0.3)
            finding = found(looked(server.url), "reachable")
        server.kill()
    assert finding.what.startswith("it returned an error: BUSY ")


# -- startup ---------------------------------------------------------------------------------


def start(url: str, *entries: Entry) -> None:
    connect_to(url)
    settings.settings["kvs"] = {
        "default": {"type": "stub"},
        **{entry.name: {"type": entry.type, **entry.options} for entry in entries},
    }
    kvs_startup_check()


def required(entry: Entry) -> Entry:
    return Entry(entry.name, entry.type, {**entry.options, "require": True})


def test_startup_warns(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer("--maxmemory-policy", "allkeys-lru") as server:
        start(server.url, STATES, CACHE)
        lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert {record.name for record in caplog.records} == {"lo_kvs.kvs.checks.startup"}
    assert lines[0].startswith(f"Redis at 127.0.0.1:{server.port} (states): nothing is persisted")
    assert "(states, cache): maxmemory-policy is allkeys-lru" in lines[1]
    assert KVS.names() == ["default", "states", "cache"]


def test_startup_logs_nothing_about_a_healthy_server(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    start(redis_url, required(STATES), required(CACHE))
    assert caplog.records == []


def test_startup_without_stores_on_redis_connects_nowhere(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        start(f"redis://127.0.0.1:{listening.getsockname()[1]}/0")
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert caplog.records == []


def test_required_store_refuses_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer("--maxmemory-policy", "allkeys-lru") as server:
        start(server.url)
        with pytest.raises(MissingKVSParameters) as refused:
            start(server.url, required(STATES), CACHE)
        first, second = refused.value.faults
        assert first.startswith(
            f"kvs.states.require: Redis at 127.0.0.1:{server.port}: nothing is persisted"
        )
        assert second.startswith("kvs.states.require: ")
        assert "allkeys-lru" in second
        assert KVS.names() == ["default"]  # nothing changed
        assert isinstance(KVS(), InMemoryKVS)
        # Problems of another store do not count.
        start(server.url, STATES)
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "noeviction")
        start(server.url, STATES, required(CACHE))
        assert KVS.names() == ["default", "states", "cache"]


def test_required_store_starts_with_unknown_findings(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with user_with(redis_server, "~*", "+@all", "-@dangerous") as user:
        start(redis_url.replace("//", f"//{user}:secret@"), required(STATES))
    (record,) = caplog.records
    assert "could not determine whether data is persisted" in record.getMessage()
    assert "secret" not in record.getMessage()


def test_unreachable_server_at_startup(caplog: pytest.LogCaptureFixture) -> None:
    nowhere = f"redis://127.0.0.1:{closed_port()}/0"
    start(nowhere, STATES, CACHE)
    (record,) = caplog.records
    assert "(states, cache): it cannot be reached" in record.getMessage()
    with pytest.raises(MissingKVSParameters, match=r"cache\.require: .* cannot be reached"):
        start(nowhere, STATES, required(CACHE))


def test_faults_of_the_configuration_come_before_a_look_at_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(MissingKVSParameters) as refused:
        start(f"redis://127.0.0.1:{closed_port()}/0", required(STATES), Entry("x", "nothing"))
    (fault,) = refused.value.faults
    assert fault.startswith("kvs.x: unknown type")
    assert caplog.records == []


def test_cluster_under_the_addresses_that_the_store_uses() -> None:
    announced = ("--cluster-announce-ip", "192.0.2.1", "--cluster-announce-hostname", "localhost")
    for endpoint, unserved in (("hostname", False), ("unknown-endpoint", False), ("ip", True)):
        options = (*SOUND, *announced, "--cluster-preferred-endpoint-type", endpoint)
        with RedisServer(*options, "--cluster-enabled", "yes") as server:
            with redis.Redis.from_url(server.url) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            settings.settings["redis_connection"] = {
                "redis_cluster": True,
                "redis_nodes": [f"127.0.0.1:{server.port}"],
            }
            reports = look([STATES])
        assert any(not report.reached for report in reports) == unserved, (endpoint, reports)


def test_cluster_without_slots() -> None:
    with RedisServer(*SOUND, "--cluster-enabled", "yes") as server:
        settings.settings["redis_connection"] = {
            "redis_cluster": True,
            "redis_nodes": [f"127.0.0.1:{server.port}"],
        }
        (report,) = look([STATES])
    assert "16,384 of the cluster's 16,384 slots" in found(report, "cluster").what
