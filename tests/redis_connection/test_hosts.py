"""Invalid hosts of servers, Sentinels and nodes are refused before they are resolved."""

from __future__ import annotations

import pytest

from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings

NO_HOSTS = {
    "": "is empty",
    "  ": "is empty",
    "hunter2.example:6379": "contains a port: use redis_port for it",
    "10:20": "contains a port",
    "redis://hunter2.example": "contains a URL: use redis_url for it",
    "redis://:hunter2@127.0.0.1": "contains a URL",
    "u:hunter2@127.0.0.1": "contains a user or a password: use redis_username and redis_password",
    "hunter2@127.0.0.1": "contains a user or a password",
    "/run/hunter2.sock": "contains a path: use redis_socket for a unix socket",
    "127.0.0.1/0": "contains a path",
    "${REDIS_HOST}": "contains a variable",
    "$REDIS_HOST": "contains a variable",
    "[::1]": "contains brackets",
    " hunter2.example": "has spaces around it",
    "hunter2.example\n": "has spaces around it",
    "hunter2 example": "is not a host name or an IP address",
    "a,hunter2": "is not a host name",
    "hunter2..example": "is not a host name",
    ".hunter2": "is not a host name",
    "h" * 64 + ".example": "is not a host name",
    "620": "is not a host name",
    ":::hunter2": "is not a host name",
    "hunter2\0": "is not a host name",
}


@pytest.mark.parametrize("host", NO_HOSTS)
def test_invalid_host(host: str) -> None:
    with pytest.raises(StartupCheck) as in_a_block:
        RedisSettings.from_mapping({"redis_host": host})
    with pytest.raises(StartupCheck) as by_hand:
        RedisSettings(host=host)
    for found in (in_a_block, by_hand):
        assert f"redis_host {NO_HOSTS[host]}" in str(found.value)
        assert "hunter2" not in f"{found.value!r}"


@pytest.mark.parametrize("option", ["redis_sentinels", "redis_nodes"])
@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "redis://hunter2", "u:hunter2@h", "/run/hunter2", "${HOST}", "[h]", "[[::1]]"),
        *("h h", "a..b", "620", "::1"),
    ],
)
def test_invalid_host_in_a_list(option: str, host: str) -> None:
    with pytest.raises(StartupCheck) as found:
        RedisSettings.from_mapping({option: ["a:1", f"{host}:6379"]})
    assert f"{option}: item 2 is not a host:port" in str(found.value)
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    "host",
    ["localhost", "127.0.0.1", "::1", "fe80::1%eth0", "redis_states", "a-b.example.", "bücher.de"],
)
def test_valid_host(host: str) -> None:
    assert RedisSettings.from_mapping({"redis_host": host}).host == host


def test_kubernetes_variable_as_port() -> None:
    with pytest.raises(StartupCheck, match="redis_port expects a whole number, got other text"):
        RedisSettings.from_mapping({"redis_port": "tcp://10.0.0.1:6379"})


@pytest.mark.parametrize("service", ["u:hunter2@h", "redis://:hunter2@h", "a b", "$SERVICE"])
def test_invalid_service_name(service: str) -> None:
    with pytest.raises(StartupCheck) as found:
        RedisSettings.from_mapping({"redis_sentinels": ["a:1"], "redis_sentinel_service": service})
    assert "redis_sentinel_service is not a valid service name" in str(found.value)
    assert "hunter2" not in str(found.value)
