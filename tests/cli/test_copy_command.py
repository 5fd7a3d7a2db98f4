"""`lo-kvs copy`, between real servers, a real cluster and folders."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from tests.cli.conftest import PROGRAM

from lo_kvs.cli import copy_output
from lo_kvs.copying import Copy
from lo_kvs.kvs import FilesystemKVS, Store
from lo_kvs.kvs.redis.key_names import cluster_name
from lo_kvs.testing import ClusterServers
from lo_kvs.testing.servers.server import RedisServer

#: What lies in the source: also what no codec of ours would write, or even read.
RAW: dict[str, bytes] = {
    "Internal,m.f,STUDENT:s1": b'{"n": 1}',
    "External,m.f,STUDENT:s1": b'{ "n" :1.0 }',
    "Internal,m.f,EventField.doc_id:D{1},STUDENT:b}b": b"[1]",
    "Internal,m.f,{STUDENT:s1}": b'"another key than the first"',
    "Internal,m.f": b"{}",
    "Internal,{m.f}": b'"braces of its own"',
    "External,a{b,STUDENT:S": b"-0.0",
    "External,m.f,}": b"1E400",
    "{a}b": b"1",
    "a}{b": b"2",
    "NLP_CACHE_17": b"NaN",
    "caf\u00e9 \U0001f642": '"\u2028 \u96ea"'.encode(),
    "line\nbreak/\x1b[31m..": b"\n null\n",
    "": b"null",
    "none": b"null",
    "empty": b"",
    "damaged": b"{",
    "bytes": bytes(range(256)),
    "big": b'"' + b"x" * 6_000_000 + b'"',
    "large": b"[" + b"1234567," * 400_000 + b"1]",
}
CORRUPT = {"empty", "damaged", "bytes"}


def configure(folder: Path, entries: Mapping[str, Any], **settings: Any) -> None:
    content = {"kvs": {"default": {"type": "stub"}, **entries}, **settings}
    (folder / "creds.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def places(tmp_path: Path, redis_url: str, cluster: ClusterServers) -> str:
    """Settings with a single server, a cluster, and the same server's next database."""
    configure(
        tmp_path,
        {
            "single": {"type": "redis"},
            "clustered": {"type": "redis", "connection": "cluster", "prefix": "c:"},
            "back": {"type": "redis", "connection": "next"},
        },
        redis_connection={"redis_url": redis_url},
        redis_connections={
            "cluster": {"redis_cluster": True, "redis_nodes": list(cluster.nodes)},
            "next": {"redis_url": redis_url.removesuffix("/0") + "/1"},
        },
    )
    return redis_url


def put(url: str, values: Mapping[str, bytes], prefix: str = "") -> None:
    with redis.Redis.from_url(url) as client:
        client.mset({prefix + key: data for key, data in values.items()})


def everything(url: str, prefix: str = "", db: int = 0) -> dict[str, bytes]:
    """All strings of a single server under their keys, without the project's code."""
    with redis.Redis.from_url(url.removesuffix("/0") + f"/{db}") as client:
        names = [name for name in client.scan_iter() if not name.startswith(b"__lokvs:")]
        return {
            name.decode().removeprefix(prefix): client.get(name)
            for name in names
            if client.type(name) == b"string"
        }


def numbers(line: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\b\d[\d,]*\b(?!\.)", line)]


def keys_on(cluster: ClusterServers) -> int:
    return sum(cluster.ask(node, "DBSIZE") for node in range(len(cluster.servers)))


def test_single_server_to_cluster_and_back(
    lo_kvs: Any, places: str, cluster: ClusterServers
) -> None:
    put(places, RAW)
    answer = lo_kvs("copy", "single", "clustered")
    assert answer.code == 0, answer
    count = len(RAW)
    assert re.search(
        rf"^{count} keys copied, 0 replaced, 0 already equal, 0 kept \(.* MB in ", answer.out
    )
    assert f"\n{len(CORRUPT)} values not valid JSON, copied unchanged\n" in answer.out
    assert f"\nchecked: {count} keys in the source, {count} in the target, {count} equal\n" in (
        answer.out
    )
    for key, data in RAW.items():
        name = ("c:" + cluster_name(key)).encode()
        assert cluster.on(name, "GET") == data, key
        assert cluster.on(name, "PTTL") == -1

    answer = lo_kvs("copy", "clustered", "back")
    assert answer.code == 0, answer
    assert everything(places, db=1) == RAW
    assert everything(places) == RAW
    dumps = [
        sorted(lo_kvs("dump", "--store", name).out.replace(",\n", "\n").splitlines())
        for name in ("single", "clustered", "back")
    ]
    assert dumps[0] == dumps[1] == dumps[2]
    assert len(dumps[0]) > len(RAW) - len(CORRUPT)


def test_files_to_server_and_back(lo_kvs: Any, tmp_path: Path, redis_url: str) -> None:
    configure(
        tmp_path,
        {
            "one": {"type": "filesystem", "path": "one", "fsync": False},
            "two": {"type": "redis", "prefix": "two:"},
            "three": {"type": "filesystem", "path": "three", "subdirs": True, "fsync": False},
        },
        redis_connection={"redis_url": redis_url},
    )
    put(redis_url, RAW, prefix="two:")
    put(redis_url, {"other program's": b"1"})
    for source, target in (("two", "one"), ("one", "three")):
        answer = lo_kvs("copy", source, target)
        assert answer.code == 0, answer

    async def read(store: Store) -> dict[str, bytes | None]:
        async with store:
            keys = await store.keys()
            return dict(zip(keys, await store.read(keys), strict=True))

    assert asyncio.run(read(FilesystemKVS(tmp_path / "one"))) == RAW
    assert asyncio.run(read(FilesystemKVS(tmp_path / "three", subdirs=True))) == RAW


def test_target_gives_its_own_expiry(lo_kvs: Any, tmp_path: Path, redis_url: str) -> None:
    configure(
        tmp_path,
        {
            "one": {"type": "redis_ephemeral", "expiry": 50, "prefix": "1:"},
            "two": {"type": "redis_ephemeral", "expiry": 5000, "prefix": "2:"},
            "kept": {"type": "redis", "prefix": "3:"},
        },
        redis_connection={"redis_url": redis_url},
    )
    with redis.Redis.from_url(redis_url) as client:
        client.set("1:a", "1", px=60_000)
        assert lo_kvs("copy", "one", "two").code == 0
        assert 4_000 < client.ttl("2:a") <= 5000
        assert lo_kvs("copy", "one", "kept").code == 0
        assert client.ttl("3:a") == -1
        assert 0 < client.ttl("1:a") <= 60


def test_killed_copy_goes_on(
    lo_kvs: Any,
    lo_kvs_process: Callable[..., subprocess.Popen[str]],
    places: str,
    cluster: ClusterServers,
) -> None:
    many = {f"Internal,m.f,STUDENT:{n}": b'{"n":%d}' % n for n in range(40_000)}
    put(places, many)
    process = lo_kvs_process("copy", "single", "clustered")
    wait_for(lambda: keys_on(cluster) > 2_000)
    process.kill()
    process.communicate()
    there = sum(len(cluster.ask(node, "KEYS", "c:*")) for node in range(len(cluster.servers)))
    assert 1_000 < there < len(many)
    answer = lo_kvs("copy", "single", "clustered")
    assert answer.code == 0, answer
    copied, replaced, equal, left = numbers(answer.out.splitlines()[0])[:4]
    assert (copied + equal, replaced, left) == (len(many), 0, 0)
    assert equal == there
    assert numbers(answer.out.splitlines()[1]) == [len(many)] * 3


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_interrupted_copy_says_how_far_it_came(
    lo_kvs: Any,
    lo_kvs_process: Callable[..., subprocess.Popen[str]],
    places: str,
    cluster: ClusterServers,
) -> None:
    put(places, {f"key {n}": b"%d" % n for n in range(40_000)})
    process = lo_kvs_process("copy", "single", "clustered")
    wait_for(lambda: keys_on(cluster) > 2_000)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    reported = re.search(
        r"^lo-kvs: stopped: copied ([\d,]+) keys .*run the same command again", err, re.MULTILINE
    )
    assert reported is not None, err
    # The group that was under way may be there besides.
    there = sum(len(cluster.ask(node, "KEYS", "c:*")) for node in range(3))
    assert 0 < int(reported[1].replace(",", "")) <= there < 40_000
    assert "Traceback" not in err
    assert lo_kvs("copy", "single", "clustered").code == 0


def test_different_values_in_the_target_are_kept(
    lo_kvs: Any, places: str, cluster: ClusterServers
) -> None:
    put(places, {"same": b"1", "differs": b"1", "list": b"1", "new": b"1"})
    cluster.on(b"c:same", "SET", "1")
    cluster.on(b"c:differs", "SET", " 1")  # the same value, other bytes
    cluster.on(b"c:list", "RPUSH", "1")
    cluster.on(b"c:own", "SET", "2")
    dry = lo_kvs("copy", "single", "clustered", "--dry-run")
    assert dry.code == 1, dry
    assert numbers(dry.out)[:4] == [1, 0, 1, 2]
    assert cluster.on(b"c:new", "GET") is None
    answer = lo_kvs("copy", "single", "clustered")
    assert answer.code == 1, answer
    for each in (dry, answer):
        assert 'lo-kvs: 1 key with a different value in the target: "differs"\n' in each.err
        assert "lo-kvs: 1 key with another program's data type in the target" in each.err
    assert "1 key copied, 0 replaced, 1 already equal, 2 kept (1 byte in" in answer.out
    assert "checked: 4 keys in the source, 4 in the target, 2 equal\n" in answer.out
    assert "1 key only in the target\n" in answer.out
    assert cluster.on(b"c:differs", "GET") == b" 1"
    cluster.on(b"c:list", "DEL")
    answer = lo_kvs("copy", "single", "clustered", "--overwrite")
    assert answer.code == 0, answer
    assert "1 key copied, 1 replaced, 2 already equal, 0 kept (2 bytes in" in answer.out
    assert cluster.on(b"c:differs", "GET") == b"1"
    assert cluster.on(b"c:own", "GET") == b"2"


@pytest.mark.parametrize("catch_up", [False, True])
def test_source_that_changes_during_the_copy(
    lo_kvs: Any,
    places: str,
    cluster: ClusterServers,
    monkeypatch: pytest.MonkeyPatch,
    catch_up: bool,
) -> None:
    put(places, dict.fromkeys(("quiet", "hot", "gone", "taken", "lost"), b"1"))
    check = Copy.check

    async def changed_first(job: Copy) -> None:
        put(places, {"hot": b"2", "new": b"1"})
        with redis.Redis.from_url(places) as client:
            client.delete("gone")
        cluster.on(b"c:taken", "SET", "3")  # the target is in use already
        cluster.on(b"c:lost", "DEL")
        await check(job)

    monkeypatch.setattr(Copy, "check", changed_first)
    answer = lo_kvs("copy", "single", "clustered", *["--catch-up"] * catch_up)
    assert answer.code == 1, answer
    reported = {
        '1 key changed in the source during the copy: "hot"',
        '1 key added to the source during the copy: "new"',
        '1 key removed from the source during the copy: "gone"',
    }
    others = {
        '1 key with a different value in the target: "taken"',
        '1 key copied, but since removed from the target: "lost"',
    }
    lines = {line.removeprefix("lo-kvs: ") for line in answer.err.splitlines()}
    assert lines & (reported | others) == (others if catch_up else reported | others)
    assert ("3 keys copied again\n" in answer.out) == catch_up
    for key, data in {"hot": b"2", "new": b"1", "gone": None}.items():
        before = {"hot": b"1", "new": None, "gone": b"1"}[key]
        assert cluster.on(f"c:{key}".encode(), "GET") == (data if catch_up else before)
    assert cluster.on(b"c:taken", "GET") == b"3"
    assert cluster.on(b"c:lost", "GET") is None


def test_source_that_changes_is_equal_once_it_is_caught_up(
    lo_kvs: Any, places: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(places, {f"k{n}": b"1" for n in range(2_000)})
    check = Copy.check

    async def changed_first(job: Copy) -> None:
        put(places, {f"k{n}": b"2" for n in range(1_000)})
        await check(job)

    monkeypatch.setattr(Copy, "check", changed_first)
    answer = lo_kvs("copy", "single", "clustered", "--catch-up")
    assert answer.code == 0, answer
    assert "\n1,000 keys copied again\n" in answer.out
    assert "checked: 2,000 keys in the source, 2,000 in the target, 2,000 equal\n" in answer.out


def test_only_keys_with_a_prefix(lo_kvs: Any, places: str) -> None:
    put(places, RAW)
    assert lo_kvs("copy", "single", "clustered", "--prefix", "Internal,m.f").code == 0
    answer = lo_kvs("copy", "clustered", "back")
    assert answer.code == 0, answer
    expected = {key: data for key, data in RAW.items() if key.startswith("Internal,m.f")}
    assert everything(places, db=1) == expected


def test_dry_run_writes_nothing(lo_kvs: Any, places: str, cluster: ClusterServers) -> None:
    put(places, RAW)
    answer = lo_kvs("copy", "single", "clustered", "--dry-run")
    assert answer.code == 0, answer
    assert answer.out.startswith(
        f"{len(RAW)} keys would be copied, 0 would be replaced, 0 already equal"
    )
    assert f"{len(CORRUPT)} values not valid JSON, to be copied unchanged" in answer.out
    assert keys_on(cluster) == 0


def test_target_that_cannot_be_reached(lo_kvs: Any, tmp_path: Path, redis_url: str) -> None:
    with RedisServer() as server:
        gone = {"redis_url": server.url, "redis_retry_for": 0.1}
    put(redis_url, {"a": b"1"})
    configure(
        tmp_path,
        {"one": {"type": "redis"}, "two": {"type": "redis", "connection": "gone"}},
        redis_connection={"redis_url": redis_url},
        redis_connections={"gone": gone},
    )
    for arguments in (["one", "two"], ["two", "one"], ["one", "two", "--dry-run"]):
        answer = lo_kvs("copy", *arguments)
        assert (answer.code, answer.out) == (4, ""), answer
        assert "lo-kvs: stopped: " in answer.err
        assert f"lo-kvs: 127.0.0.1:{server.port}: gave up" in answer.err


def test_target_that_is_lost_before_the_check(
    lo_kvs: Any, tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer() as server:
        there = {"redis_url": server.url, "redis_retry_for": 0.1}
        put(redis_url, {"a": b"1"})
        configure(
            tmp_path,
            {"one": {"type": "redis"}, "two": {"type": "redis", "connection": "there"}},
            redis_connection={"redis_url": redis_url},
            redis_connections={"there": there},
        )
        check = Copy.check

        async def killed_first(job: Copy) -> None:
            server.kill()
            await check(job)

        monkeypatch.setattr(Copy, "check", killed_first)
        answer = lo_kvs("copy", "one", "two")
    assert (answer.code, answer.out) == (4, ""), answer
    assert "copied 1 key (1 byte), skipped 0; checking\n" in answer.err
    assert "lo-kvs: stopped: checked " in answer.err


def test_one_store_is_not_copied_to_itself(
    lo_kvs: Any,
    tmp_path: Path,
    redis_server: RedisServer,
    redis_url: str,
    cluster: ClusterServers,
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "files")
    nodes = list(cluster.nodes)
    configure(
        tmp_path,
        {
            "a": {"type": "redis"},
            "b": {"type": "redis_ephemeral", "expiry": 9, "connection": "other_name"},
            "prefixed": {"type": "redis", "prefix": "p:"},
            "next": {"type": "redis", "connection": "next"},
            "cluster": {"type": "redis", "connection": "cluster", "prefix": "p:"},
            "cluster2": {"type": "redis", "connection": "cluster2", "prefix": "p:"},
            "files": {"type": "filesystem", "path": "files"},
            "link": {"type": "filesystem", "path": str(tmp_path / "link")},
            "nofolder": {"type": "filesystem", "path": "not/there"},
        },
        redis_connection={"redis_url": redis_url},
        redis_connections={
            "other_name": {"redis_host": "localhost", "redis_port": redis_server.port},
            "next": {"redis_url": redis_url.removesuffix("/0") + "/1"},
            "cluster": {"redis_cluster": True, "redis_nodes": nodes[:1]},
            "cluster2": {"redis_cluster": True, "redis_nodes": nodes[1:]},
        },
    )
    put(redis_url, {"a": b"1", "p:b": b"2", "Internal,c": b"3"})
    before = everything(redis_url)
    refused = [
        ("nofolder", "a", "no such directory: not/there"),
        ("a", "a", "they are the same store"),
        ("a", "b", "both use 127.0.0.1:"),
        ("a", "prefixed", "one lists keys of the other"),
        ("prefixed", "a", "one lists keys of the other"),
        ("cluster", "cluster2", "with the prefix 'p:'"),
        ("files", "link", "both store their files in"),
        ("default", "a", "exists only during this command"),
        ("a", "default", "exists only during this command"),
        ("a", "nix", "no store named 'nix'"),
    ]
    (tmp_path / "files").mkdir()
    for source, target, why in refused:
        answer = lo_kvs("copy", source, target)
        assert (answer.code, answer.out) == (2, ""), (source, target, answer)
        assert why in answer.err, (source, target, answer)
        assert (tmp_path / "not").exists() == (source != "nofolder")
    assert everything(redis_url) == before
    assert keys_on(cluster) == 0
    # These do not meet, though server or prefix are the same.
    assert lo_kvs("copy", "a", "next").code == 0
    assert everything(redis_url, db=1) == before
    assert lo_kvs("copy", "a", "prefixed", "--prefix", "Internal,").code == 0
    assert everything(redis_url) == {**before, "p:Internal,c": b"3"}


def test_progress_in_lines(lo_kvs: Any, places: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put(places, {f"k{n}": b"1" for n in range(3_000)})
    monkeypatch.setattr(copy_output, "LINE_S", 0.0)
    err = lo_kvs("copy", "single", "clustered").err
    copied = [numbers(line)[0] for line in err.splitlines() if line.startswith("copied ")]
    checked = [numbers(line)[0] for line in err.splitlines() if line.startswith("checked ")]
    assert copied == sorted(copied)
    assert len(copied) > 3
    assert copied[-1] == checked[-1] == 3_000
    assert "\nchecked 3,000 of 3,000 keys, 0 differ\n" in err
    assert "\033" not in err


def test_progress_on_a_terminal(tmp_path: Path, places: str) -> None:
    put(places, {f"k{n}": b"1" for n in range(3_000)})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "copy", "single", "clustered"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65_536)
        except OSError:  # raised by a terminal whose other end is closed
            break
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0, shown
    assert b"\033[" in shown
    assert b"copied 3,000 keys" in shown
    assert out.startswith(b"3,000 keys copied")
