"""The event logs in `LOKVS_REAL_LOGS`, through the shipped reducers into every kind of store.

`make real-logs LOGS=folder` runs it; what the states must be is worked out from the logs
here, without the project's code.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from lo_kvs.copying import copy
from lo_kvs.ingest.event_log import EventLogs
from lo_kvs.ingest.job import Ingest, Reject
from lo_kvs.kvs import (
    EphemeralRedisKVS,
    FilesystemKVS,
    InMemoryKVS,
    PersistentRedisKVS,
    Store,
)
from lo_kvs.kvs.redis.key_names import cluster_name
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.stream_analytics.pipeline import Pipeline
from lo_kvs.testing import ClusterServers
from lo_kvs.testing.servers.server import RedisServer

KEY = re.compile(
    r"External,lo_kvs\.reducers\.\w+\.(?P<reducer>\w+)"
    r"(,EventField\.doc_id:(?P<document>.+))?,STUDENT:(?P<student>.+)"
)


@pytest.fixture(scope="module")
def logs() -> list[Path]:
    folder = Path(os.environ["LOKVS_REAL_LOGS"])
    found = sorted(
        path for path in folder.iterdir() if re.search(r"\.study\.log(\.gz)?$", path.name)
    )
    assert found, f"no *.study.log or *.study.log.gz in {folder}"
    return found


@pytest.fixture(scope="module")
def events(logs: list[Path]) -> list[Any]:
    def lines() -> Iterator[bytes]:
        for path in logs:
            data = path.read_bytes()
            yield from (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()

    return [json.loads(line.split(b"\t")[0]) for line in lines() if line.strip()]


def settings_of(cluster: ClusterServers) -> RedisSettings:
    return RedisSettings(cluster=True, nodes=cluster.nodes)


def stores(
    folder: Path, connection: RedisSettings, cluster: RedisSettings
) -> dict[str, Callable[[], Store]]:
    return {
        "stub": InMemoryKVS,
        "filesystem": lambda: FilesystemKVS(folder / "flat"),
        "subdirs": lambda: FilesystemKVS(folder / "folders", subdirs=True),
        "redis": lambda: PersistentRedisKVS(prefix="a:", connection=connection),
        "redis_ephemeral": lambda: EphemeralRedisKVS(3600, prefix="b:", connection=connection),
        "cluster": lambda: PersistentRedisKVS(prefix="a:", connection=cluster),
    }


async def dumped(kind: str, make: Callable[[], Store], logs: list[Path]) -> bytes:
    """All states after the logs went into a store of this kind, as sorted JSON."""
    rejects: list[Reject] = []
    pipeline = Pipeline.of_module("lo_kvs.reducers")
    read = EventLogs([str(path) for path in logs])
    async with make() as store:
        job = Ingest(pipeline, store, on_reject=rejects.append)
        await job.run(read.batches())
        assert (rejects, read.damaged, job.tally.no_source) == ([], [], 0)
        tally = job.tally
        told = f"{kind:<16} {tally.events:,} events in {tally.seconds:.2f} s"
        print(f"\n{told}, {tally.events_s:,.0f}/s", end="")  # noqa: T201 - people wait for it
        return json.dumps(await store.dump(), sort_keys=True).encode()


@pytest.fixture(scope="module")
def dumps(
    logs: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
    cluster_servers: ClusterServers,
    request: pytest.FixtureRequest,
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("stores")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    cluster_servers.flush()
    with capture.global_and_fixture_disabled(), RedisServer() as server:
        made = stores(folder, RedisSettings(url=server.url), settings_of(cluster_servers))
        return {kind: asyncio.run(dumped(kind, make, logs)) for kind, make in made.items()}


def external(dump: bytes, reducer: str) -> dict[tuple[str, ...], Any]:
    """The External states of a reducer, by student, or by student and document."""
    states: dict[tuple[str, ...], Any] = {}
    for key, state in json.loads(dump).items():
        parts = KEY.fullmatch(key)
        if parts is not None and parts["reducer"] == reducer:
            entity = (parts["student"], parts["document"])
            states[tuple(part for part in entity if part is not None)] = state
    return states


def student_of(event: Any) -> str:
    student: str = event["metadata"]["auth"]["safe_user_id"]
    return student


def test_states_are_the_same_in_every_store(dumps: dict[str, bytes]) -> None:
    assert len(json.loads(dumps["stub"])) > 0
    for kind, dump in dumps.items():
        assert dump == dumps["stub"], kind


def test_states_on_the_cluster_lie_on_all_its_nodes(
    dumps: dict[str, bytes], cluster_servers: ClusterServers
) -> None:
    found = [
        {name for name in cluster_servers.ask(node, "KEYS", "*") if name.startswith(b"a:")}
        for node in range(len(cluster_servers.servers))
    ]
    assert all(found)
    names = {("a:" + cluster_name(key)).encode() for key in json.loads(dumps["stub"])}
    assert set.union(*found) == names


def test_copy_from_the_cluster_is_equal_by_bytes(
    dumps: dict[str, bytes], redis_server: RedisServer, cluster_servers: ClusterServers
) -> None:
    async def main() -> dict[str, bytes | None]:
        single = RedisSettings(url=redis_server.url)
        source = PersistentRedisKVS(prefix="a:", connection=settings_of(cluster_servers))
        target = PersistentRedisKVS(prefix="copy:", connection=single)
        async with source, target:
            job = await copy(source, target)
            assert job.equal
            assert job.tally.copied == job.tally.seen == len(json.loads(dumps["stub"]))
            assert json.dumps(await target.dump(), sort_keys=True).encode() == dumps["stub"]
            keys = await source.keys()
            return dict(zip(keys, await source.read(keys), strict=True))

    stored = asyncio.run(main())
    with redis.Redis.from_url(redis_server.url) as client:
        names = list(client.scan_iter("copy:*"))
        copied = {name.decode().removeprefix("copy:"): client.get(name) for name in names}
    assert copied == stored


def test_every_event_is_counted_once(dumps: dict[str, bytes], events: list[Any]) -> None:
    for dump in dumps.values():
        counts = {student: s["count"] for (student,), s in external(dump, "event_count").items()}
        assert counts == Counter(map(student_of, events))
        assert sum(counts.values()) == len(events)


def test_documents_are_those_of_the_logs(dumps: dict[str, bytes], events: list[Any]) -> None:
    expected: dict[str, set[str]] = {}
    for event in events:
        if "doc_id" in event["client"]:
            expected.setdefault(student_of(event), set()).add(event["client"]["doc_id"])
    found = external(dumps["redis"], "document_list")
    assert {student: set(state["documents"]) for (student,), state in found.items()} == expected


def test_texts_are_those_that_were_typed(dumps: dict[str, bytes], events: list[Any]) -> None:
    documents: dict[tuple[str, str], list[bytes]] = {}  # the UTF-16 units of each text
    for event in events:
        client = event["client"]
        if client["event"] == "google_docs_save":
            units = documents.setdefault((student_of(event), client["doc_id"]), [])
            for bundle in client["bundles"]:
                for command in bundle["commands"]:
                    execute(command, units)
    expected = {entity: b"".join(units).decode("utf-16-le") for entity, units in documents.items()}
    found = external(dumps["redis"], "document_text")
    assert {entity: state["text"] for entity, state in found.items()} == expected
    assert {state["bad_commands"] for state in found.values()} == {0}
    assert all(expected.values())


def execute(command: Any, units: list[bytes]) -> None:
    if command["ty"] == "mlti":
        for inner in command["mts"]:
            execute(inner, units)
    elif command["ty"] == "is":
        data = command["s"].encode("utf-16-le")
        at = command["ibi"] - 1
        units[at:at] = [data[n : n + 2] for n in range(0, len(data), 2)]
    elif command["ty"] == "ds":
        del units[command["si"] - 1 : command["ei"]]


def test_time_on_task_is_that_of_the_logs(dumps: dict[str, bytes], events: list[Any]) -> None:
    expected: dict[str, float] = {}
    last: dict[str, float] = {}
    for event in events:
        student, now = student_of(event), event["server"]["time"]
        expected[student] = expected.get(student, 0.0) + min(now - last.get(student, now), 60.0)
        last[student] = now
    for (student,), state in external(dumps["redis"], "time_on_task_bins").items():
        total = sum(state["bins"].values()) + state["older_seconds"]
        assert total == pytest.approx(expected[student])


def test_command_line_comes_to_the_same(
    dumps: dict[str, bytes],
    logs: list[Path],
    events: list[Any],
    tmp_path: Path,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from typer.testing import CliRunner

    from lo_kvs.cli import app

    monkeypatch.chdir(tmp_path)
    content = {
        "kvs": {"default": {"type": "redis"}},
        "redis_connection": {"redis_url": redis_url},
    }
    (tmp_path / "creds.yaml").write_text(yaml.safe_dump(content))
    names = [str(path) for path in logs]
    started = time.perf_counter()
    result = CliRunner().invoke(app, ["ingest", *names, "--reducers", "lo_kvs.reducers", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["events"], found["skipped"], found["failed"]) == (len(events), 0, 0)
    assert 0 < found["seconds"] < time.perf_counter() - started
    states = json.loads(CliRunner().invoke(app, ["dump"]).stdout)
    assert found["keys"] == len(states)
    assert json.dumps(states, sort_keys=True).encode() == dumps["stub"]
