"""Faults of TLS, and addresses where no server is: reported at once where waiting does not help."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.kvs.redis_places import closed_port
from tests.redis_connection.conftest import Certificates
from tests.redis_connection.odd_servers import served
from tests.redis_connection.places import tls_settings

from lo_kvs.kvs import PersistentRedisKVS, Refused, Unavailable
from lo_kvs.kvs.checks.startup import look_at_server
from lo_kvs.kvs.configuration import Entry
from lo_kvs.kvs.errors import KVSError, TLSFailed
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.testing.servers.cluster import ClusterServers
from lo_kvs.testing.servers.server import RedisServer
from lo_kvs.testing.servers.tls import TLSProxy

STATES = Entry("states", "redis", {})
#: Far less than the deadline of the connections here, which is 20 s, and enough for a busy machine.
AT_ONCE_S = 12.0


def errors_of(where: RedisSettings) -> list[KVSError]:
    """What reading and writing raise."""

    async def main() -> list[KVSError]:
        errors = []
        async with PersistentRedisKVS(connection=where) as store:
            for use in (store.get("key"), store.set("key", 1), store.keys()):
                with pytest.raises(KVSError) as error:
                    await use
                errors.append(error.value)
        return errors

    return asyncio.run(main())


def assert_refused_at_once(where: RedisSettings, *words: str) -> None:
    start = time.monotonic()
    for error in errors_of(where):
        assert isinstance(error, TLSFailed)
        assert isinstance(error, Refused)
        assert isinstance(error, Unavailable)
        assert all(each in str(error) for each in words), str(error)
    (finding,) = look_at_server(where, [STATES]).bad
    assert all(each in str(finding) for each in words), str(finding)
    assert time.monotonic() - start < AT_ONCE_S


def slow(port: int, **options: Any) -> RedisSettings:
    return tls_settings(port, **{"retry_for": 20.0, **options})


def test_certificate_of_an_unknown_authority(tls_port: int, certificates: Certificates) -> None:
    words = ("certificate verify failed", "set redis_ca")
    assert_refused_at_once(slow(tls_port, ca=certificates.other_ca), *words)
    assert_refused_at_once(slow(tls_port), *words)


def test_expired_certificate(redis_server: RedisServer, tmp_path: Path) -> None:
    authority = trustme.CA()
    yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    made = authority.issue_cert("localhost", not_after=yesterday)
    paths = {name: str(tmp_path / name) for name in ("ca", "certificate", "key")}
    authority.cert_pem.write_to_path(paths["ca"])
    made.private_key_pem.write_to_path(paths["key"])
    made.cert_chain_pems[0].write_to_path(paths["certificate"])
    with TLSProxy(redis_server.port, certificate=paths["certificate"], key=paths["key"]) as proxy:
        assert_refused_at_once(slow(proxy.port, ca=paths["ca"]), "expired", "renew")


def test_certificate_of_another_host(redis_server: RedisServer, certificates: Certificates) -> None:
    with TLSProxy(
        redis_server.port, certificate=certificates.elsewhere, key=certificates.elsewhere_key
    ) as proxy:
        where = slow(proxy.port, ca=certificates.ca)
        assert_refused_at_once(where, "mismatch", "set redis_host", "redis_check_hostname")


def test_tls_at_a_plain_port(redis_server: RedisServer, certificates: Certificates) -> None:
    # What Redis makes of a handshake depends on its random bytes: it answers or waits for more.
    assert_refused_at_once(slow(redis_server.port, ca=certificates.ca), "redis_tls: false")


def test_tls_at_a_plain_port_that_waits_for_more(certificates: Certificates) -> None:
    def talk(connection: Any) -> None:
        data = b""
        while more := connection.recv(65_536):
            data += more
            if data.startswith(b"PING\r\n"):
                connection.sendall(b"-NOAUTH Authentication required.\r\n")

    with served(talk) as port:
        where = slow(port, ca=certificates.ca, timeout=20.0)
        assert_refused_at_once(where, "does not speak TLS", "redis_tls: false")


@pytest.mark.parametrize("password", [None, "hunter2"])
@pytest.mark.parametrize("protocol", [3, 2])
def test_plain_connection_at_a_tls_port(
    tls_port: int, mutual_port: int, password: str | None, protocol: int
) -> None:
    for port in (tls_port, mutual_port):
        login: dict[str, Any] = {"username": None, "password": password, "protocol": protocol}
        where = slow(port, tls=False, **login)
        if protocol == 2 and password is None:
            continue  # nothing is said before the first command
        assert_refused_at_once(where, "redis_tls: true")


def test_cluster_with_a_wrong_authority(certificates: Certificates) -> None:
    with (
        ClusterServers(size=1) as cluster,
        TLSProxy(
            int(cluster.nodes[0].rpartition(":")[2]),
            certificate=certificates.server,
            key=certificates.server_key,
        ) as proxy,
    ):
        where = RedisSettings(
            cluster=True,
            nodes=(f"localhost:{proxy.port}",),
            tls=True,
            ca=certificates.other_ca,
            retry_for=20.0,
        )
        start = time.monotonic()
        for error in errors_of(where):
            assert isinstance(error, TLSFailed)
        assert time.monotonic() - start < AT_ONCE_S


def test_sentinels_with_a_wrong_authority(
    redis_server: RedisServer, certificates: Certificates
) -> None:
    with TLSProxy(
        redis_server.port, certificate=certificates.server, key=certificates.server_key
    ) as proxy:
        where = RedisSettings(
            sentinels=(f"localhost:{proxy.port}",),
            sentinel_service="states",
            tls=True,
            ca=certificates.other_ca,
            retry_for=20.0,
        )
        assert_refused_at_once(where, "certificate verify failed", "set redis_ca")


@pytest.mark.parametrize(
    ("place", "hint"),
    [
        ({"host": "127.0.0.1"}, "is redis-server running on that port?"),
        ({"host": "localhost"}, "is redis-server running on that port?"),
        ({"host": "no-such-host.invalid"}, "check redis_host"),
        ({"socket": "/no/such/redis.sock"}, "check redis_socket"),
    ],
    ids=str,
)
def test_no_server_at_that_address(place: dict[str, str], hint: str) -> None:
    where = RedisSettings(**{"port": closed_port(), "retry_for": 0.2, **place})  # type: ignore[arg-type]
    for error in errors_of(where):
        assert isinstance(error, Unavailable)
        assert hint in str(error)
    (finding,) = look_at_server(where, [STATES]).bad
    assert hint in str(finding)
