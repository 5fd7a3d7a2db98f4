"""Every contradiction in a `redis_connection` block is reported at startup, with the fix."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.redis_connection.conftest import Certificates

from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings, factory

S = {"sentinels": ["a:1", "b:2"], "sentinel_service": "states"}
NO_ADDRESSES = (
    *("host", "host:", ":1", "host:0", "host:65536", "host:\u0661", "::1", "[::1]", "host: one"),
    *("hunter2@host:1", "u:hunter2@host:1", "redis://:hunter2@host:1"),
)
TWO = "keep one of the two (in an overlay, set the other one to null)"
#: Options without their prefix, and the complete line of each fault.
FAULTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "url and host": (
        {"url": "redis://a/0", "host": "b", "port": 1},
        [f"redis_url and redis_host, redis_port both give the server's address: {TWO}"],
    ),
    "url and socket": (
        {"url": "redis://a/0", "socket": "/s"},
        [f"redis_url and redis_socket both give the server's address: {TWO}"],
    ),
    "socket and host": (
        {"socket": "/s", "host": "b"},
        [f"redis_socket and redis_host both give the server's address: {TWO}"],
    ),
    "sentinels and host": (
        {**S, "host": "b"},
        [f"redis_sentinels and redis_host both give the server's address: {TWO}"],
    ),
    "sentinels and url": (
        {**S, "url": "redis://a"},
        [f"redis_sentinels and redis_url both give the server's address: {TWO}"],
    ),
    "nodes and host": (
        {"cluster": True, "nodes": "a:1", "port": 5},
        [f"redis_nodes and redis_port both give the server's address: {TWO}"],
    ),
    "password twice": (
        {"url": "redis://:hunter2@a/0", "password": "hunter2"},
        ["redis_password is set, and redis_url contains one too: keep one of the two"],
    ),
    "db twice": (
        {"url": "redis://a/3", "db": 3},
        ["redis_db is set, and redis_url contains one too: keep one of the two"],
    ),
    "ca twice": (
        {"url": "rediss://a?ssl_ca_certs=CA", "ca": "CA"},
        ["redis_ca is set, and redis_url contains one too: keep one of the two"],
    ),
    "tls by a url without": (
        {"url": "redis://a/0", "tls": True},
        [
            (
                "redis_tls is true, but redis_url says otherwise (rediss:// is TLS, redis:// and "
                "unix:// are not): remove redis_tls"
            )
        ],
    ),
    "no tls by a url with": (
        {"url": "rediss://a/0", "tls": False},
        [
            (
                "redis_tls is false, but redis_url says otherwise (rediss:// is TLS, redis:// and "
                "unix:// are not): remove redis_tls"
            )
        ],
    ),
    "socket with tls": (
        {"socket": "/s", "tls": True},
        ["redis_tls: a unix socket has no TLS; use redis_host, or remove redis_tls"],
    ),
    "ca without tls": (
        {"ca": "CA"},
        [
            (
                "redis_ca: this connection does not use TLS; set redis_tls: true (in a URL: "
                "rediss://), or remove this option"
            )
        ],
    ),
    "host name without tls": (
        {"check_hostname": False, "url": "redis://a"},
        [
            (
                "redis_check_hostname: this connection does not use TLS; set redis_tls: true "
                "(in a URL: rediss://), or remove this option"
            )
        ],
    ),
    "certificate without key": (
        {"tls": True, "certificate": "CRT"},
        [
            (
                "redis_certificate needs redis_key, the file with its private key (the same file "
                "if it contains both)"
            )
        ],
    ),
    "key without certificate": (
        {"tls": True, "key": "KEY"},
        [
            "redis_key needs redis_certificate, the file with its certificate",
        ],
    ),
    "no such files": (
        {"tls": True, "ca": "/no/ca", "certificate": "/no/crt", "key": "/no/key"},
        [
            f"redis_{name}: /no/{file}: No such file or directory; use a PEM file that this "
            "process can read"
            for name, file in (("ca", "ca"), ("certificate", "crt"), ("key", "key"))
        ],
    ),
    "no such file in the url": (
        {"url": "rediss://a?ssl_ca_certs=/no/ca"},
        ["redis_ca: /no/ca: No such file or directory; use a PEM file that this process can read"],
    ),
    "folder as a file": (
        {"tls": True, "ca": "/"},
        ["redis_ca: /: Is a directory; use a PEM file that this process can read"],
    ),
    "nul in a path": (
        {"tls": True, "ca": "a\0b"},
        ["redis_ca: a\0b: not a valid path; use a PEM file that this process can read"],
    ),
    "ca that is none": ({"tls": True, "ca": "TEXT"}, ["redis_ca: TEXT contains no certificate"]),
    "key of another certificate": (
        {"tls": True, "certificate": "CRT", "key": "OTHER"},
        ["redis_certificate, redis_key: CRT and OTHER are not PEM files of a certificate and its"],
    ),
    "locked key": (
        {"tls": True, "certificate": "CRT", "key": "LOCKED"},
        ["or the key is encrypted: decrypt it with `openssl pkey`"],
    ),
    "tls as text": (
        {"tls": "hunter2"},
        ["redis_tls expects true or false, got other text (not shown, it may be a secret)"],
    ),
    "sentinels without a service": (
        {"sentinels": "a:1"},
        [
            (
                "redis_sentinel_service is missing: the name after `sentinel monitor` in the "
                "configuration of the Sentinels"
            )
        ],
    ),
    "service without sentinels": (
        {"sentinel_service": "states", "sentinel_password": "hunter2"},
        [
            (
                "redis_sentinel_service, redis_sentinel_password: this connection has no "
                "Sentinels; list them in redis_sentinels, or remove this option"
            )
        ],
    ),
    "user of Sentinel without a password": (
        {**S, "sentinel_username": "u"},
        ["redis_sentinel_username needs redis_sentinel_password"],
    ),
    "sentinels: nothing": (
        {"sentinels": []},
        ["redis_sentinels is empty: list at least one host:port, or remove the option"],
    ),
    "sentinels: a number": (
        {"sentinels": 5},
        ["redis_sentinels expects a list of texts, each host:port, got a number"],
    ),
    "sentinels: a mapping": (
        {"sentinels": [{"a": 26379}]},
        ["redis_sentinels expects a list of texts, each host:port, got a list"],
    ),
    **{
        f"address {text}": (
            {**S, "sentinels": ["a:1", text]},
            [
                (
                    "redis_sentinels: item 2 is not a host:port; write it like redis.example:6379, "
                    "with a port up to 65535 and no password"
                )
            ],
        )
        for text in NO_ADDRESSES
    },
    "nodes without a cluster": (
        {"nodes": ["a:1"]},
        [
            (
                "redis_nodes are the nodes of a cluster: set redis_cluster: true, or use "
                "redis_host and redis_port"
            )
        ],
    ),
    "cluster with sentinels": (
        {**S, "cluster": True},
        [
            (
                "redis_cluster: a cluster does not use Sentinels; remove redis_sentinels, or "
                "redis_cluster"
            ),
        ],
    ),
    "cluster on a socket": (
        {"cluster": True, "socket": "/s"},
        ["redis_cluster: a cluster cannot use a unix socket; use redis_host or"],
    ),
    "cluster on a socket by url": (
        {"cluster": True, "url": "unix:///s"},
        ["redis_cluster: a cluster cannot use a unix socket; use redis_host or"],
    ),
    "cluster with a db": ({"cluster": True, "db": 1}, ["redis_db must be 0 on a cluster, got 1"]),
    "cluster with a db by url": (
        {"cluster": True, "url": "redis://a/2"},
        ["redis_db must be 0 on a cluster, got 2"],
    ),
    "cluster with options in its url": (
        {"cluster": True, "url": "rediss://a?ssl_cert_reqs=none&client_name=b"},
        [
            (
                "redis_url has options that a cluster does not support: client_name, "
                "ssl_cert_reqs; use the options of redis_connection"
            )
        ],
    ),
    "word in a url": (
        {"url": "rediss://:hunter2@a?ssl_cert_reqs=hunter2"},
        ["redis_url has an invalid option: ssl_cert_reqs"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_reported(
    name: str, certificates: Certificates, locked_key: str, tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("hunter2")
    files = {
        "CA": certificates.ca,
        "CRT": certificates.client,
        "KEY": certificates.client_key,
        "OTHER": certificates.server_key,
        "LOCKED": locked_key,
        "TEXT": str(text),
    }

    def filled(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return re.sub("|".join(rf"\b{word}\b" for word in files), lambda m: files[m[0]], value)

    options, expected = FAULTS[name]
    block = {f"redis_{option}": filled(value) for option, value in options.items()}
    with pytest.raises(StartupCheck) as found:
        RedisSettings.from_mapping(block, where="redis_connections.states")
    assert "hunter2" not in f"{found.value} {found.value!r}"
    lines = str(found.value).splitlines()
    assert len(lines) == len(expected)
    for line, wanted in zip(lines, expected, strict=True):
        assert line.startswith("redis_connections.states: redis_")
        assert filled(wanted) in line


def test_all_faults_are_reported_at_once() -> None:
    block = {
        "redis_tls": True,
        "redis_certificate": "/no/crt",
        "redis_sentinels": "a",
        "redis_host": "b",
        "redis_cluster": True,
        "redis_db": 1,
        "redis_pool_size": 1,
        "redis_tsl": True,
    }
    with pytest.raises(StartupCheck) as found:
        RedisSettings.from_mapping(block)
    lines = str(found.value).splitlines()
    assert len(lines) == 9
    assert all(line.startswith("redis_connection: ") for line in lines)


def test_valid_options(certificates: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_text(
        Path(certificates.client).read_text() + Path(certificates.client_key).read_text()
    )
    where = RedisSettings.from_mapping(
        {
            "redis_tls": True,
            "redis_ca": certificates.ca,
            "redis_certificate": str(both),
            "redis_key": str(both),
            "redis_check_hostname": False,
            "redis_sentinels": " a:1, [::1]:26379 ,",
            "redis_sentinel_service": "states",
            "redis_sentinel_username": "u",
            "redis_sentinel_password": 12345,
            "redis_host": None,
            "redis_url": None,
        }
    )
    assert where.sentinels == ("a:1", "[::1]:26379")
    assert where.sentinel_password == "12345"
    assert where.place == "states of the Sentinels a:1, [::1]:26379"
    at = where.at("::1", 6379)
    assert (at.sentinels, at.sentinel_service, at.sentinel_password) == ((), None, None)
    assert (at.tls, at.certificate, at.check_hostname) == (True, str(both), False)


def test_seeds_of_a_cluster() -> None:
    options = {"redis_cluster": True}
    assert RedisSettings.from_mapping(options).seed_nodes() == [("localhost", 6379)]
    named = options | {"redis_host": "a", "redis_port": 7000}
    assert RedisSettings.from_mapping(named).seed_nodes() == [("a", 7000)]
    nodes = RedisSettings.from_mapping(options | {"redis_nodes": ["a:1", "[::1]:2"]})
    assert nodes.seed_nodes() == [("a", 1), ("::1", 2)]
    assert nodes.place == "the cluster at a:1, [::1]:2"
    url = RedisSettings.from_mapping(options | {"redis_url": "rediss://u:hunter2@a:7/0"})
    assert url.seed_nodes() == [("a", 7)]
    at = url.at("b", 8)
    assert (at.host, at.port, at.tls, at.username, at.password) == ("b", 8, True, "u", "hunter2")
    assert (at.cluster, at.url, at.db) == (False, None, 0)
    with pytest.raises(ValueError, match=r"the cluster at a:7 has many servers.*at\(host, port\)"):
        factory.client(url)


def test_option_in_the_url_and_in_the_block() -> None:
    where = RedisSettings.from_mapping(
        {"redis_url": "redis://a", "redis_db": 3, "redis_password": "hunter2"}
    )
    options = factory.client(where).connection_pool.connection_kwargs
    assert (options["host"], options["db"], options["password"]) == ("a", 3, "hunter2")


def test_unbounded_clients_have_no_time_outs_of_redis_py() -> None:
    for url, seconds in (("redis://a", 4.0), ("redis://a?socket_timeout=7", 7.0)):
        where = RedisSettings.from_mapping({"redis_url": url, "redis_timeout": 4})
        assert factory.client(where).connection_pool.connection_kwargs["socket_timeout"] == seconds
        unbounded = factory.client(where, bounded=False)
        assert unbounded.connection_pool.connection_kwargs["socket_timeout"] is None
