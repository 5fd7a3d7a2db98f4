"""Settings files that are too large, too deep, or no files: refused at once, as settings faults."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from lo_kvs.kvs import KVSRouter
from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.settings import load_settings


def laughs(form: str, depth: int) -> str:
    """Ten times as many values in each line, all of them by aliases."""
    lines = [
        f"a{at}: &a{at} " + form.format(", ".join([f"*a{at - 1}"] * 10)) for at in range(1, depth)
    ]
    return "\n".join(["a0: &a0 {x: 1, y: 2}", *lines, ""])


TEXTS = {
    "a list of aliases": (laughs("[{}]", 9), "has more than 100,000 values"),
    "a list in itself": ("a: &a [*a]", "nested too deeply, or within itself"),
    "a mapping in itself": ("a: &a {b: *a}", "nested too deeply, or within itself"),
    "lists": ("a: " + "[" * 3_000 + "]" * 3_000, "nested too deeply"),
    "mappings": ("a: " + "{b: " * 3_000 + "}" * 3_000, "nested too deeply"),
    "blocks": ("\n".join(" " * at + "a:" for at in range(900)), "nested too deeply"),
    "base 60": (
        "a: 1" + ":1" * 3_000,
        "line 1: a value looks like a number or a date but is not valid",
    ),
    "fraction of base 60": ("a: 1" + ":1" * 3_000 + ".5", "line 1: a value looks like a number"),
    "many digits": ("b: 1\na: " + "9" * 5_000, "line 2: a value looks like a number"),
    "many digits of base 16": ("a: 0x" + "f" * 5_000, "line 1: a value looks like a number"),
    "many digits as a name": ("? " + "9" * 5_000 + "\n: a", "line 1: a value looks like a number"),
    "tag of a number": ("a: !!int hunter2", "line 1: a value looks like a number"),
    "tag of an empty number": ("a: !!int ''", "line 1: a value looks like a number"),
    "tag of a fraction": ("a: !!float hunter2", "line 1: a value looks like a number"),
    "tag of a date": ("a: !!timestamp hunter2", "line 1: a value looks like a number"),
    "tag of a boolean": ("a: !!bool hunter2", "line 1: a value looks like a number"),
    "tag of bytes": ("a: !!binary hünter2", "line 1, column 4 is not YAML"),
    "names that mean the same": ("{1: a, 0x1: b}", "line 1: two names of a mapping are equal"),
    "large": ("a: " + "x" * 1_000_000, "is larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("overlay", [False, True])
def test_yaml(tmp_path: Path, name: str, overlay: bool) -> None:
    path = tmp_path / "creds.yaml"
    text, reason = TEXTS[name]
    path.write_text(text)
    started = time.process_time()
    with pytest.raises(StartupCheck) as found:
        load_settings({}, path) if overlay else load_settings(path)
    assert time.process_time() - started < 20  # it took minutes, and all the memory there was
    assert str(found.value).startswith(f"{path}: ")
    assert reason in str(found.value)
    assert found.value.__context__ is None
    assert "hunter2" not in str(found.value)


def test_chain_of_merges_is_no_larger_than_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "creds.yaml"
    path.write_text(laughs("{{<<: [{}], z: 3}}", 9) + "kvs: {<<: *a8, default: {<<: *a8}}")
    settings = load_settings(path)
    assert settings["a8"] == {"x": 1, "y": 2, "z": 3}
    assert settings["kvs"] == {"x": 1, "y": 2, "z": 3, "default": {"x": 1, "y": 2, "z": 3}}


def test_aliases_in_reason(tmp_path: Path) -> None:
    path = tmp_path / "creds.yaml"
    path.write_text(laughs("[{}]", 4))
    assert len(load_settings(path)["a3"]) == 10


PMSS = {
    "selectors": ("a { " * 3_000 + "b: c; " + "} " * 3_000, "is nested too deeply"),
    "open comments": ("/*" * 400_000, "line 1: a comment is not closed by `*/`"),
    "open comment": ("a { b: c; }\n/* hunter2", "line 2: a comment is not closed by `*/`"),
    "many digits": ("a {\n b: " + "9" * 5_000 + "; }", "line 2: the value of `b` looks like"),
    "base 60": ("a { b: 1" + ":1" * 3_000 + "; }", "line 1: the value of `b` looks like"),
    "large": ("a { b: " + "x" * 1_000_000 + "; }", "is larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize("name", PMSS)
def test_pmss(tmp_path: Path, name: str) -> None:
    path = tmp_path / "site.pmss"
    text, reason = PMSS[name]
    path.write_text(text)
    with pytest.raises(StartupCheck) as found:
        load_settings({}, path)
    assert str(found.value).startswith(f"{path}")
    assert reason in str(found.value)
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize("name", ["creds.yaml", "site.pmss"])
def test_paths_that_are_not_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(StartupCheck, match="is not a regular file"):
        load_settings(path)
    with pytest.raises(StartupCheck, match="is not a regular file"):
        load_settings({}, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(StartupCheck, match="is not a regular file"):
        load_settings(path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(StartupCheck, match="cannot be read: Too many levels of symbolic links"):
        load_settings(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(StartupCheck, match="cannot be read: Is a directory"):
        load_settings(path)


def test_home_folder_and_variables_in_the_path_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "creds.yaml").write_text("a: 1\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SITE", str(tmp_path))
    monkeypatch.delenv("OTHER", raising=False)
    for path in ("~/creds.yaml", "$SITE/creds.yaml", "${SITE}/creds.yaml"):
        assert load_settings(path) == {"a": 1}
        assert load_settings({}, path) == {"a": 1}
    for path in ("~nobody-here/creds.yaml", "$OTHER/creds.yaml", "${OTHER:-x}/creds.yaml"):
        with pytest.raises(StartupCheck, match="the settings: invalid path"):
            load_settings(path)
        with pytest.raises(StartupCheck, match="overlay 1: invalid path"):
            load_settings({}, path)


HUGE: tuple[Any, ...] = (10**5_000, -(10**5_000), float("inf"), float("nan"), 10**400)


@pytest.mark.parametrize("value", HUGE, ids=range(len(HUGE)))
def test_huge_numbers_in_a_dict(value: Any) -> None:
    for option in ("redis_port", "redis_db", "redis_pool_size", "redis_timeout", "redis_retry_for"):
        if option == "redis_pool_size" and value > 0:
            continue
        if option == "redis_db" and value > 0:
            continue
        with pytest.raises(StartupCheck, match=option):
            RedisSettings.from_mapping({option: value})
    for option in ("expiry", "wait_timeout", "lanes", "prefix", "wait_aof"):
        with pytest.raises(StartupCheck, match=rf"kvs.cache.{option}: expected"):
            KVSRouter(items={"cache": {"type": "redis_ephemeral", "expiry": 1, option: value}})
