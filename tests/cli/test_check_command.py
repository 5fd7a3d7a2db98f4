from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from lo_kvs.kvs import codec
from lo_kvs.stream_analytics.engine import engine
from lo_kvs.testing.servers.server import RedisServer


def engine_form() -> str:
    return "pure" if str(engine.__file__).endswith(".py") else "compiled"


def test_embedded_default(lo_kvs: Any) -> None:
    answer = lo_kvs("check")
    assert answer.code == (0 if codec.COMPILED else 1), answer
    assert re.search(rf"^JSON codec +{codec.IMPLEMENTATION}$", answer.out, re.MULTILINE)
    assert re.search(rf"^engine +{engine_form()}$", answer.out, re.MULTILINE)
    assert answer.out.endswith("no problems found\n") == codec.COMPILED
    assert "store default (filesystem, .lo_kvs): answers, " in answer.out
    assert answer.err == ""


def test_pure_python_is_a_warning(
    lo_kvs_process: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKVS_PURE", "1")
    assert os.environ["LOKVS_PURE"] == "1"
    process = lo_kvs_process("check")
    out, err = process.communicate()
    assert process.returncode == 1, err
    assert re.search(r"^JSON codec +pure$", out, re.MULTILINE)
    assert re.search(r"^engine +pure$", out, re.MULTILINE)
    assert "LOKVS_PURE=1" in out
    assert "install a C compiler" in out
    assert err == ""


def test_every_store_is_asked(lo_kvs: Any, tmp_path: Path, redis_url: str) -> None:
    write(tmp_path, redis_url, one={"type": "redis", "prefix": "one:"})
    answer = lo_kvs("check")
    assert answer.code == 0, answer
    assert "store default (stub, in this process only): answers, " in answer.out
    assert "store one (redis, " in answer.out
    assert ", prefix one:): answers, " in answer.out


def test_store_that_cannot_be_reached(lo_kvs: Any, tmp_path: Path) -> None:
    with RedisServer(password="secret") as server:
        url = server.url
    write(tmp_path, url, one={"type": "redis"}, two={"type": "filesystem", "path": "two"})
    answer = lo_kvs("check")
    assert answer.code == 4, answer
    assert "store one (redis, 127.0.0.1:" in answer.out
    assert "): its server does not answer\n" in answer.out
    assert re.search(r"^  error    reachable    it cannot be reached: ", answer.out, re.MULTILINE)
    assert "store two (filesystem, two): answers, " in answer.out
    assert "secret" not in answer.out + answer.err


def test_every_fault_of_the_configuration(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "creds.yaml").write_text(
        yaml.safe_dump({"kvs": {"a": {"type": "rediss"}, "b": {"type": "filesystem"}}})
    )
    answer = lo_kvs("check")
    assert answer.code == 2
    for fault in ("kvs.a: unknown type 'rediss'", "kvs.b: `path` is missing", "kvs.default: "):
        assert fault in answer.out


def test_faults_of_the_reducers_block_too(lo_kvs: Any, tmp_path: Path) -> None:
    content = {"kvs": {"default": {"type": "rediss"}}, "reducers": {"cache": 1}}
    (tmp_path / "creds.yaml").write_text(yaml.safe_dump(content))
    answer = lo_kvs("check")
    assert answer.code == 2
    assert "kvs.default: unknown type 'rediss'" in answer.out
    assert "reducers: unknown option 'cache'" in answer.out


def test_sound_server(lo_kvs: Any, tmp_path: Path, redis_url: str) -> None:
    write(tmp_path, redis_url, one={"type": "redis", "prefix": "one:", "require": True})
    answer = lo_kvs("check")
    assert answer.code == (0 if codec.COMPILED else 1), answer
    assert re.search(r"a PING takes [\d,]+ us, a bare script takes [\d,]+ us\n", answer.out)
    assert re.search(r"^  ok       version      (Redis|Valkey) \d", answer.out, re.MULTILINE)
    assert "\033" not in answer.out  # colours are for terminals
    assert answer.err == ""


def test_warnings(lo_kvs: Any, tmp_path: Path) -> None:
    with RedisServer("--maxmemory-policy", "allkeys-lru") as server:
        entry = {"type": "redis", "prefix": "one:", "require": True}
        write(tmp_path, server.url, one=entry, two={"type": "redis_ephemeral", "expiry": 1})
        answer = lo_kvs("check")
        assert answer.code == 1, answer
        # Results once, and as findings: the check does not stop at what would refuse a start.
        for line in (
            f"Redis at 127.0.0.1:{server.port}, database 0, for one, two:",
            "  warning  persistence  nothing is persisted: a restart ",
            " loses every state (one)\n",
            "  warning  eviction     maxmemory-policy is allkeys-lru: ",
            "                        -> set `maxmemory-policy noeviction`",
            "  warning  prefixes     two lists and clears the keys of one ",
        ):
            assert answer.out.count(line) == 1, answer
        assert answer.err == ""


def test_unknown_findings_are_not_errors(
    lo_kvs: Any, tmp_path: Path, redis_server: RedisServer, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">x", "~*", "+@all", "-@dangerous")
        write(tmp_path, redis_url.replace("//", "//app:x@"), one={"type": "redis"})
        answer = lo_kvs("check")
        client.execute_command("ACL", "DELUSER", "app")
    assert answer.code == (0 if codec.COMPILED else 1), answer
    assert "  unknown  INFO         could not determine whether data is persisted" in answer.out


def test_right_that_is_lacking_is_an_error(
    lo_kvs: Any, tmp_path: Path, redis_server: RedisServer, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">x", "~one:*", "+@all")
        write(
            tmp_path,
            redis_url.replace("//", "//app:x@"),
            one={"type": "redis", "prefix": "one:"},
        )
        answer = lo_kvs("check")
        client.execute_command("ACL", "DELUSER", "app")
    assert answer.code == 4, answer
    assert "  error    rights " in answer.out
    assert "(ACL SETUSER … ~__lokvs:*)" in answer.out


def test_json(lo_kvs: Any, tmp_path: Path) -> None:
    with RedisServer(password="secret") as server:
        write(tmp_path, server.url, one={"type": "redis"})
        answer = lo_kvs("check", "--json")
        place = f"127.0.0.1:{server.port}"
    assert answer.code == 1
    assert "secret" not in answer.out
    report = json.loads(answer.out)
    assert report["exit_code"] == 1
    assert report["codec"] == codec.IMPLEMENTATION
    assert report["versions"]["lo-kvs"]
    assert {store["name"]: store["answers"] for store in report["stores"]} == {
        "default": True,
        "one": True,
    }
    (there,) = report["servers"]
    assert (there["place"], there["db"], there["stores"]) == (place, 0, ["one"])
    assert there["ping_us"] > 0
    assert there["script_us"] > 0
    warned = [each for each in there["findings"] if each["severity"] != "ok"]
    assert [(each["check"], each["stores"]) for each in warned] == [("persistence", ["one"])]
    assert "appendonly" in warned[0]["fix"]
    # The old name of `fix`, until 1.0.
    assert all(found["way_out"] == found["fix"] for found in there["findings"])


def test_json_of_faults(lo_kvs: Any, tmp_path: Path) -> None:
    (tmp_path / "creds.yaml").write_text("kvs: {}")
    answer = lo_kvs("check", "--json")
    assert answer.code == 2
    report = json.loads(answer.out)
    assert report["exit_code"] == 2
    assert "kvs.default: there is no default store" in report["faults"]


def write(folder: Path, url: str, **stores: dict[str, Any]) -> None:
    content = {
        "kvs": {"default": {"type": "stub"}, **stores},
        "redis_connection": {"redis_url": url},
    }
    (folder / "creds.yaml").write_text(yaml.safe_dump(content))
