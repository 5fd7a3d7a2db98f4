"""No password appears in messages, errors, reprs, logs or the command line."""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from tests.kvs.redis_places import closed_port
from tests.redis_connection.conftest import Certificates
from tests.redis_connection.places import tls_settings

from lo_kvs.kvs import KVSError, PersistentRedisKVS
from lo_kvs.kvs.redis.cluster.client import ClusterClient
from lo_kvs.kvs.redis.store import EphemeralRedisKVS
from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings, factory
from lo_kvs.testing.servers.sentinel import SentinelServer
from lo_kvs.testing.servers.server import RedisServer

#: In every option that can contain a secret. User names are not shown either.
SECRETS = ("hunter2", "hunter3", "secret-user")
USER, PASSWORD, SENTINEL_PASSWORD = "secret-user", "hunter2", "hunter3"


def shown(error: BaseException) -> str:
    """All that anybody can print of an error, with its causes."""
    return f"{error} {error!r} {vars(error)} {''.join(traceback.format_exception(error))}"


def assert_silent(*texts: object) -> None:
    for text in texts:
        for secret in SECRETS:
            assert secret not in str(text), text


def places(server: RedisServer, sentinel: SentinelServer) -> list[RedisSettings]:
    """Every way to say a password, each to somebody who refuses it or does not answer."""
    port = server.port
    login: dict[str, Any] = {"username": USER, "password": PASSWORD, "retry_for": 0.3}
    one: dict[str, Any] = {
        "sentinels": (f"127.0.0.1:{sentinel.port}",),
        "sentinel_service": "states",
    }
    nobody = closed_port()
    return [
        RedisSettings(host="127.0.0.1", port=port, **login),
        RedisSettings(host="127.0.0.1", port=nobody, **login),
        RedisSettings(url=f"redis://{USER}:{PASSWORD}@127.0.0.1:{port}/0", retry_for=0.3),
        RedisSettings(url=f"redis://127.0.0.1:{port}/0?password={PASSWORD}", retry_for=0.3),
        RedisSettings(url=f"rediss://{USER}:{PASSWORD}@127.0.0.1:{port}/0", retry_for=0.3),
        RedisSettings(socket="/no/socket", **login),
        # The Sentinel refuses its password; it lets us in and the server does not; no Sentinel.
        RedisSettings(**one, sentinel_password="hunter3-wrong", **login),
        RedisSettings(**one, sentinel_password=SENTINEL_PASSWORD, **login),
        RedisSettings(**one, **login),
        RedisSettings(
            sentinels=(f"127.0.0.1:{nobody}",),
            sentinel_service="states",
            sentinel_username=USER,
            sentinel_password=SENTINEL_PASSWORD,
            **login,
        ),
    ]


async def fail(where: RedisSettings) -> None:
    for store in (PersistentRedisKVS(connection=where), EphemeralRedisKVS(5, connection=where)):
        async with store:
            for use in (
                functools.partial(store.get, "key"),
                functools.partial(store.set, "key", 1),
                store.keys,
            ):
                with pytest.raises(KVSError) as error:
                    await use()
                assert_silent(shown(error.value))
            assert_silent(repr(store), store, *map(repr, store._clients.values()))
            for traffic in store._clients.values():
                assert not isinstance(traffic, ClusterClient)
                client: Any = traffic.connection.client()
                assert_silent(repr(traffic.connection), repr(client), client.connection_pool)
    with factory.blocking_client(where, 0.5) as blocking:
        assert_silent(repr(blocking))
        with pytest.raises(redis.RedisError) as refused:
            blocking.ping()
        assert_silent(shown(refused.value))


def test_errors_logs_and_reprs(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        RedisServer(password="another") as server,
        SentinelServer(
            server.port,
            quorum=1,
            down_after_ms=60_000,
            failover_timeout_ms=60_000,
            primary_password="another",
            password=SENTINEL_PASSWORD,
        ) as sentinel,
    ):
        for where in places(server, sentinel):
            assert_silent(repr(where), where, where.place)
            asyncio.run(fail(where))
    assert_silent(caplog.text, *capfd.readouterr())


def test_wrong_certificate(tls_port: int, certificates: Certificates) -> None:
    where = tls_settings(tls_port, ca=certificates.other_ca, retry_for=0.3)
    asyncio.run(fail(where))


WRONG = {
    "redis_port": PASSWORD,
    "redis_password": [PASSWORD],
    "redis_username": {USER: PASSWORD},
    "redis_url": f"http://{USER}:{PASSWORD}@host",
    "redis_tls": PASSWORD,
    "redis_sentinels": [f"{USER}:{PASSWORD}@host:1"],
    "redis_nodes": f"redis://:{PASSWORD}@host:1",
    "redis_sentinel_password": [SENTINEL_PASSWORD],
    "redis_timeout": PASSWORD,
}


def test_faults_of_a_block() -> None:
    for option, value in WRONG.items():
        with pytest.raises(StartupCheck) as fault:
            RedisSettings.from_mapping({option: value})
        assert option in str(fault.value)
        error = fault.value
        assert_silent(f"{error} {error!r}")
        assert error.__cause__ is None
        assert error.__context__ is None


def run_check(folder: Path, blocks: dict[str, object]) -> tuple[int, str]:
    kvs = {"default": {"type": "redis"}, "other": {"type": "redis", "connection": "other"}}
    (folder / "creds.yaml").write_text(yaml.safe_dump({"kvs": kvs, **blocks}))
    program = "import sys; from lo_kvs.cli import app; app(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "--config", "creds.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_check_command(tmp_path: Path) -> None:
    code, output = run_check(tmp_path, {"redis_connection": WRONG, "redis_connections": {}})
    assert code == 2
    assert_silent(output)
    with RedisServer(password="another") as server:
        here = {"redis_host": "127.0.0.1", "redis_port": server.port}
        wrong = {"redis_username": USER, "redis_password": PASSWORD}
        nobody = {
            "redis_sentinels": [f"127.0.0.1:{closed_port()}"],
            "redis_sentinel_service": "states",
            "redis_sentinel_password": SENTINEL_PASSWORD,
        }
        code, output = run_check(
            tmp_path,
            {"redis_connection": {**here, **wrong}, "redis_connections": {"other": nobody}},
        )
    assert code == 4
    assert f"Redis at 127.0.0.1:{server.port}, database 0, for default" in output
    assert "authentication failed: WRONGPASS" in output
    assert "states of the Sentinels 127.0.0.1" in output
    assert_silent(output)
