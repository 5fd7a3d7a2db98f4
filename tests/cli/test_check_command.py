from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from learning_observer.kvs import codec
from learning_observer.testing.server import RedisServer


def test_embedded_default(lo_kvs: Any) -> None:
    answer = lo_kvs("check")
    assert answer.code == (0 if codec.COMPILED else 1), answer
    assert f"JSON codec     {codec.IMPLEMENTATION}" in answer.out
    assert "store default (filesystem, .lo_kvs): answers, " in answer.out
    assert answer.err == ""


def test_pure_codec_is_a_warning(
    lo_kvs_process: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKVS_PURE_CODEC", "1")
    assert os.environ["LOKVS_PURE_CODEC"] == "1"
    process = lo_kvs_process("check")
    out, err = process.communicate()
    assert process.returncode == 1, err
    assert "JSON codec     pure" in out


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
    assert "gave up after" in answer.out
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


def write(folder: Path, url: str, **stores: dict[str, Any]) -> None:
    content = {
        "kvs": {"default": {"type": "stub"}, **stores},
        "redis_connection": {"redis_url": url},
    }
    (folder / "creds.yaml").write_text(yaml.safe_dump(content))
