"""`~` and environment variables in the paths of a connection: replaced, or refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.redis_connection.conftest import Certificates

from lo_kvs.kvs import PersistentRedisKVS
from lo_kvs.prestartup import StartupCheck
from lo_kvs.redis_connection import RedisSettings, factory
from lo_kvs.testing.servers.server import RedisServer


@pytest.fixture
def home(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A home folder with the files, and their paths there."""
    for name in ("ca", "client", "client_key"):
        (tmp_path / name).write_bytes(Path(getattr(certificates, name)).read_bytes())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SECRETS", str(tmp_path))
    monkeypatch.delenv("NOWHERE", raising=False)
    return {"ca": "ca", "certificate": "client", "key": "client_key"}


@pytest.mark.parametrize("begin", ["~", "$SECRETS", "${SECRETS}"])
def test_files_of_tls(home: dict[str, str], tmp_path: Path, begin: str) -> None:
    block = {f"redis_{option}": f"{begin}/{name}" for option, name in home.items()}
    expected = {option: str(tmp_path / name) for option, name in home.items()}
    url = f"rediss://host?ssl_ca_certs={begin}/ca&ssl_certfile={begin}/client"
    for where in (
        RedisSettings.from_mapping({**block, "redis_tls": True}),
        RedisSettings(ca=f"{begin}/ca", certificate=f"{begin}/client", key=f"{begin}/client_key"),
        RedisSettings.from_mapping({"redis_url": f"{url}&ssl_keyfile={begin}/client_key"}),
    ):
        plain = where.without_url()
        assert {option: getattr(plain, option) for option in home} == expected
    options = factory.client(where).connection_pool.connection_kwargs
    assert options["ssl_ca_certs"] == expected["ca"]


@pytest.mark.parametrize("option", ["ca", "certificate", "key", "socket"])
@pytest.mark.parametrize("path", ["$NOWHERE/x", "${NOWHERE:-x}", "~nobody-here/x", "a$/x", " "])
def test_path_that_cannot_be_replaced(home: dict[str, str], option: str, path: str) -> None:
    with pytest.raises(StartupCheck, match=f"redis_{option}"):
        RedisSettings.from_mapping({"redis_tls": True, f"redis_{option}": path})
    given: dict[str, Any] = {option: path}
    with pytest.raises(StartupCheck, match=f"redis_{option}"):
        replace(RedisSettings(), **given)


@pytest.mark.parametrize("url", ["unix:///$NOWHERE/x", "rediss://host?ssl_ca_certs=$NOWHERE/x"])
def test_path_in_a_url_that_cannot_be_replaced(home: dict[str, str], url: str) -> None:
    with pytest.raises(StartupCheck, match="in redis_url: the environment variable NOWHERE is"):
        RedisSettings.from_mapping({"redis_url": url})


@pytest.mark.parametrize("option", ["ca", "certificate", "key"])
def test_content_of_a_file_instead_of_its_path(option: str) -> None:
    text = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
    with pytest.raises(StartupCheck) as found:
        RedisSettings.from_mapping({"redis_tls": True, f"redis_{option}": text})
    assert f"redis_{option} contains the text of a file" in str(found.value)
    assert "hunter2" not in str(found.value)


def test_socket_in_the_home_folder(home: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "r.sock"

    async def use(where: RedisSettings) -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.set("key", 1)
            assert await store.get("key") == 1

    with RedisServer("--unixsocket", str(path)):
        for block in (
            {"redis_socket": "~/r.sock"},
            {"redis_socket": "$SECRETS/r.sock"},
            {"redis_url": "unix:///$SECRETS/r.sock"},
        ):
            asyncio.run(use(RedisSettings.from_mapping(block)))
