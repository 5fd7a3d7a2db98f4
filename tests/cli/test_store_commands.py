from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from lo_kvs.testing.servers.server import RedisServer

ODD_KEYS = ["a/b", "..", "line\nbreak", "caf\u00e9 \U0001f642", "", "\x1b[31m"]
VALUES: dict[str, Any] = {key: {"n": n} for n, key in enumerate(ODD_KEYS)} | {
    "none": None,
    "big": 2**70,
    "text": "\u2028 \u96ea",
    "nested": {"a": [1, 2.5, {"b": []}]},
}


@pytest.fixture(params=["filesystem", "subdirs", "redis", "redis_ephemeral"])
def filled(request: pytest.FixtureRequest, tmp_path: Path, lo_kvs: Any) -> Path:
    """Settings of a store with `VALUES` in it."""
    stores: dict[str, dict[str, Any]] = {
        "filesystem": {"type": "filesystem", "path": str(tmp_path / "s")},
        "subdirs": {"type": "filesystem", "path": str(tmp_path / "s"), "subdirs": True},
        "redis": {"type": "redis"},
        "redis_ephemeral": {"type": "redis_ephemeral", "expiry": 600, "prefix": "*?:"},
    }
    content: dict[str, Any] = {"kvs": {"default": stores[request.param]}}
    if "redis" in request.param:
        content["redis_connection"] = {"redis_url": request.getfixturevalue("redis_url")}
    path = tmp_path / "store.yaml"
    path.write_text(yaml.safe_dump(content))
    (tmp_path / "values.json").write_text(json.dumps(VALUES))
    answer = lo_kvs("load", "values.json", "--config", path)
    assert answer.code == 0, answer
    assert answer.err.startswith(f"loaded {len(VALUES)} keys into default (")
    return path


def test_keys(lo_kvs: Any, filled: Path) -> None:
    plain = lo_kvs("keys", "--config", filled)
    assert plain.code == 0, plain
    assert sorted(plain.out) == sorted("".join(key + "\n" for key in VALUES))
    reported = lo_kvs("keys", "--json", "--config", filled).out.splitlines()
    assert sorted(map(json.loads, reported)) == sorted(VALUES)
    assert lo_kvs("keys", "n", "--config", filled).out.split() in (
        ["none", "nested"],
        ["nested", "none"],
    )


def test_get(lo_kvs: Any, filled: Path) -> None:
    for key, value in VALUES.items():
        answer = lo_kvs("get", "--config", filled, "--", key)
        assert answer.code == 0, answer
        assert json.loads(answer.out) == value


def test_get_of_an_absent_key(lo_kvs: Any, filled: Path) -> None:
    answer = lo_kvs("get", "absent", "--config", filled)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("lo-kvs: no key 'absent' in default (")


def test_get_of_an_impossible_key(lo_kvs: Any, filled: Path) -> None:
    answer = lo_kvs("get", "__lokvs:x", "--config", filled)
    assert (answer.code, answer.out) == (1, "")
    assert "is reserved" in answer.err


def test_dump(lo_kvs: Any, filled: Path, tmp_path: Path) -> None:
    assert json.loads(lo_kvs("dump", "--config", filled).out) == VALUES
    assert json.loads(lo_kvs("dump", "-", "--config", filled).out) == VALUES
    answer = lo_kvs("dump", "dump.json", "--config", filled)
    assert answer.code == 0
    assert answer.err.startswith(f"wrote {len(VALUES)} keys of default (")
    assert json.loads((tmp_path / "dump.json").read_text()) == VALUES
    assert not (tmp_path / "dump.json.part").exists()


def test_dump_and_load_through_a_pipe(
    lo_kvs: Any, lo_kvs_process: Callable[..., subprocess.Popen[str]], filled: Path
) -> None:
    text = lo_kvs("dump", "--config", filled).out
    process = lo_kvs_process("load", "-")
    _, err = process.communicate(text)
    assert process.returncode == 0, err
    assert json.loads(lo_kvs("dump").out) == VALUES


def test_load_keeps_other_keys(lo_kvs: Any, filled: Path, tmp_path: Path) -> None:
    (tmp_path / "more.json").write_text('{"none": 1, "new": 2}')
    assert lo_kvs("load", "more.json", "--config", filled).code == 0
    expected = {**VALUES, "none": 1, "new": 2}
    assert json.loads(lo_kvs("dump", "--config", filled).out) == expected


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1', '{"__lokvs:a": 1}'])
def test_load_of_values_that_cannot_be_stored(
    lo_kvs: Any, filled: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "bad.json").write_text(content)
    answer = lo_kvs("load", "bad.json", "--config", filled)
    assert answer.code == 1, answer
    assert answer.err.startswith("lo-kvs: ")
    assert json.loads(lo_kvs("dump", "--config", filled).out) == VALUES


def test_dump_of_an_empty_store(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / ".lo_kvs").mkdir()
    assert json.loads(lo_kvs("dump").out) == {}


def test_dump_leaves_out_invalid_json(lo_kvs: Any, tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "creds.yaml").write_text(
        yaml.safe_dump(
            {"kvs": {"default": {"type": "redis"}}, "redis_connection": {"redis_url": redis_url}}
        )
    )
    with redis.Redis.from_url(redis_url) as client:
        client.mset({"good": "1", "bad": "{", b"\xff": "2"})
        client.lpush("list", "3")
    answer = lo_kvs("dump")
    assert answer.code == 1, answer
    assert json.loads(answer.out) == {"good": 1}
    assert "left out: the value of 'bad' is not valid JSON" in answer.err
    answer = lo_kvs("get", "bad")
    assert (answer.code, answer.out) == (1, "")
    assert "the value of 'bad' is not valid JSON" in answer.err
    assert lo_kvs("get", "list").code == 1


@pytest.mark.parametrize("command", [["keys"], ["get", "a"], ["dump"]])
def test_nothing_to_read_here(lo_kvs: Any, tmp_path: Path, command: list[str]) -> None:
    answer = lo_kvs(*command)
    assert answer.code == 2
    assert "neither creds.yaml nor a store .lo_kvs exists in this directory" in answer.err
    assert not (tmp_path / ".lo_kvs").exists()


@pytest.mark.parametrize("command", [["keys"], ["get", "a"], ["dump"], ["load", "a.json"]])
def test_redis_that_cannot_be_reached(lo_kvs: Any, tmp_path: Path, command: list[str]) -> None:
    with RedisServer() as server:
        connection = {"redis_url": server.url, "redis_retry_for": 0.1}
    content = {"kvs": {"default": {"type": "redis"}}, "redis_connection": connection}
    (tmp_path / "creds.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "a.json").write_text('{"a": 1}')
    answer = lo_kvs(*command)
    assert answer.code == 4, answer
    warned, ended = answer.err.splitlines()
    assert warned.startswith("lo-kvs: Redis at 127.0.0.1:")
    assert ended.startswith("lo-kvs: 127.0.0.1:")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["keys", "--store", "nix"], "no store named 'nix'; configured: default"),
        (["keys", "--config", "nix.yaml"], "nix.yaml: no such file"),
        (["load", "nix.json"], "nix.json: No such file or directory"),
        (["load", "."], ".: Is a directory"),
        (["dump", "nix/dump.json"], "nix/dump.json: No such file or directory"),
    ],
)
def test_wrong_names(lo_kvs: Any, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / ".lo_kvs").mkdir()
    answer = lo_kvs(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith(f"lo-kvs: {message}")
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize("command", ["keys", "dump"])
def test_reader_that_has_seen_enough(lo_kvs: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "many.json").write_text(json.dumps({f"{n:01000d}": n for n in range(300)}))
    assert lo_kvs("load", "many.json").code == 0
    program = "from lo_kvs.cli import app; app()"
    script = f'("$0" -W error -c "$1" {command}; echo "code $?" >&2) | head -c 5'
    ended = subprocess.run(
        ["sh", "-c", script, sys.executable, program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr == "code 141\n"


def test_warnings_are_a_line_each_and_of_the_store_in_question(
    lo_kvs_process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with RedisServer() as server:
        content = {
            "kvs": {
                "default": {"type": "stub"},
                "one": {"type": "redis", "prefix": "one:"},
                "two": {"type": "redis", "connection": "gone"},
            },
            "redis_connection": {"redis_url": server.url},
            "redis_connections": {"gone": {"redis_host": "127.0.0.1", "redis_port": 1}},
        }
        (tmp_path / "creds.yaml").write_text(yaml.safe_dump(content))
        reported = {}
        for name in ("default", "one", "two"):
            process = lo_kvs_process("keys", "--store", name)
            reported[name] = process.communicate()[1].splitlines()
            assert (process.returncode == 0) == (name != "two")
    assert reported["default"] == []
    (line,) = reported["one"]
    assert line.startswith(f"lo-kvs: Redis at 127.0.0.1:{server.port} (one): ")
    warned, ended = reported["two"]
    assert warned.startswith("lo-kvs: Redis at 127.0.0.1:1 (two): it cannot be reached: ")
    assert ended.startswith("lo-kvs: 127.0.0.1:1: gave up after ")
