"""Words of YAML and PMSS that look like something else than the text that is meant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lo_kvs import settings
from lo_kvs.kvs import KVSRouter
from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings, named_settings
from lo_kvs.settings import load_settings

#: YAML 1.1 reads each of them as a number, a date, or true or false.
WORDS = (
    *("0123", "01", "12_345", "0x18EB", "0b11", "1e5", "1.5e+3", "1.10", ".5", "620", "-1"),
    *("10:20", "10:20:30", "190:20:30.15", "yes", "no", "on", "true", "False", "2026-01-01"),
    *("2026-01-01T10:20:30Z", ".inf", ".nan", "1_0.5"),
)
TEXTS = ("username", "password", "sentinel_username", "sentinel_password", "sentinel_service")

Load = Callable[[str], dict[str, Any]]


@pytest.fixture(params=["creds.yaml", "overlay.yaml", "site.pmss"])
def load(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads `place of a block, option: word` by each kind of file."""
    monkeypatch.setattr(settings, "settings", {})
    monkeypatch.setattr(settings, "sources", [])

    def load(rule: str) -> dict[str, Any]:
        place, _, setting = rule.partition(", ")
        path = tmp_path / request.param
        if path.suffix == ".pmss":
            path.write_text(f"{place} {{ {setting}; }}")
        else:
            lines = [f"{'  ' * at}{name}:" for at, name in enumerate(place.split())]
            path.write_text("\n".join([*lines, f"{'  ' * len(lines)}{setting}", ""]))
        return load_settings(path) if path.name == "creds.yaml" else load_settings({}, path)

    return load


@pytest.mark.parametrize("word", WORDS)
def test_text_of_a_connection_is_kept(load: Load, word: str) -> None:
    for option in TEXTS:
        loaded = load(f"redis_connection, redis_{option}: {word}")
        assert loaded["redis_connection"] == {f"redis_{option}": word}
        loaded = load(f"redis_connections states, redis_{option}: {word}")
        assert loaded["redis_connections"] == {"states": {f"redis_{option}": word}}


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("option", ["host", "socket", "url", "ca", "key", "nodes"])
def test_place_is_never_a_number(load: Load, option: str, word: str) -> None:
    assert load(f"redis_connection, redis_{option}: {word}") == {
        "redis_connection": {f"redis_{option}": word}
    }


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("option", ["prefix", "path", "connection", "type"])
def test_text_of_a_store_is_kept(load: Load, option: str, word: str) -> None:
    assert load(f"kvs default, {option}: {word}") == {"kvs": {"default": {option: word}}}


@pytest.mark.parametrize("word", ["010", "0123", "00", "10:20", "1:30"])
@pytest.mark.parametrize("option", ["db", "port", "pool_size", "timeout", "retry_for"])
def test_number_that_programs_read_differently(load: Load, option: str, word: str) -> None:
    loaded = load(f"redis_connection, redis_{option}: {word}")
    with pytest.raises(StartupCheck, match=f"redis_{option} expects a plain decimal number"):
        RedisSettings.from_mapping(loaded["redis_connection"])


@pytest.mark.parametrize("option", ["expiry", "wait_timeout", "lanes"])
@pytest.mark.parametrize("word", ["010", "1:30"])
def test_number_of_a_store_that_programs_read_differently(
    load: Load, option: str, word: str
) -> None:
    options = load(f"kvs cache, {option}: {word}")["kvs"]["cache"]
    with pytest.raises(StartupCheck, match=rf"kvs.cache.{option}: expected .* got '{word}'"):
        KVSRouter(items={"cache": {"type": "redis_ephemeral", "expiry": 30, **options}})


@pytest.mark.parametrize("text", ["010", "0x18EB", "12_345", "1:30", "\uff16379", "1e", "."])
def test_number_as_text(text: str) -> None:
    for option in ("redis_port", "redis_db", "redis_timeout"):
        with pytest.raises(StartupCheck, match=f"{option} expects a"):
            RedisSettings.from_mapping({option: text})


def test_plain_numbers_are_numbers(load: Load) -> None:
    for option, word, value in (
        ("port", "6380", 6380),
        ("db", "0", 0),
        ("timeout", "1.5", 1.5),
        ("timeout", "2", 2.0),
        ("retry_for", "1e1", 10.0),
        ("port", "'6380'", 6380),
    ):
        block = load(f"redis_connection, redis_{option}: {word}")["redis_connection"]
        assert getattr(RedisSettings.from_mapping(block), option) == value


@pytest.mark.parametrize("value", [1e5, 1.1, True, False])
def test_value_whose_text_is_lost(value: object) -> None:
    with pytest.raises(StartupCheck, match=r"redis_username expects text, .*put quotes around it"):
        RedisSettings.from_mapping({"redis_username": value})


def test_quotes_and_other_blocks_are_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "creds.yaml"
    path.write_text("redis_connection: {redis_username: '0123'}\nother: {path: 0123, mode: 0600}\n")
    loaded = load_settings(path)
    assert loaded["redis_connection"] == {"redis_username": "0123"}
    assert loaded["other"] == {"path": 83, "mode": 384}


@pytest.mark.parametrize(
    "text",
    [
        "kvs: [[default, {prefix: 0123}]]",
        "kvs: [{default: {prefix: 0123}}]",
        "base: &base {prefix: 0123}\nkvs: {default: *base}",
        "base: &base {prefix: 0123}\nkvs: {default: {<<: *base}}",
        "a: &a {prefix: 0123}\nb: &b {<<: [*a]}\nkvs: {default: {<<: *b}}",
        "base: &base {default: {prefix: 0123}}\nkvs: {<<: *base}",
    ],
)
def test_every_form_of_the_block(tmp_path: Path, text: str) -> None:
    path = tmp_path / "creds.yaml"
    path.write_text(text)
    kvs = load_settings(path)["kvs"]
    if isinstance(kvs, list):
        kvs = dict(next(iter(item.items())) if isinstance(item, dict) else item for item in kvs)
    assert kvs == {"default": {"prefix": "0123"}}


def test_names_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "settings", {})
    path = tmp_path / "creds.yaml"
    path.write_text("kvs: {010: {connection: 010}}\nredis_connections: {010: {redis_port: 7}}\n")
    loaded = load_settings(path)
    assert loaded["kvs"] == {"010": {"connection": "010"}}
    monkeypatch.setattr(settings, "settings", loaded)
    assert named_settings("010").port == 7


def test_sentinels_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "creds.yaml"
    path.write_text("redis_connection: {redis_sentinels: [10:20, a:1]}\n")
    assert load_settings(path)["redis_connection"] == {"redis_sentinels": ["10:20", "a:1"]}
