"""Certificates of these tests' own, and servers that speak TLS with them."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import trustme
from tests.redis_connection.places import PASSWORD, USER

from lo_kvs.testing.servers.server import RedisServer, find_program
from lo_kvs.testing.servers.tls import TLSProxy


@dataclass(frozen=True)
class Certificates:
    """PEM files: of a CA, of a server on this machine, of a client, and of a CA unknown to both."""

    ca: str
    server: str
    server_key: str
    client: str
    client_key: str
    other_ca: str
    elsewhere: str
    elsewhere_key: str


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other = trustme.CA(), trustme.CA()

    def issued(name: str, *identities: str) -> tuple[str, str]:
        made = ca.issue_cert(*identities)
        certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
        made.private_key_pem.write_to_path(key)
        for blob in made.cert_chain_pems:
            blob.write_to_path(certificate, append=True)
        return str(certificate), str(key)

    ca.cert_pem.write_to_path(folder / "ca.crt")
    other.cert_pem.write_to_path(folder / "other.crt")
    server, server_key = issued("server", "localhost", "127.0.0.1")
    client, client_key = issued("client", "somebody@example.org")
    elsewhere, elsewhere_key = issued("elsewhere", "redis.example.org")
    return Certificates(
        ca=str(folder / "ca.crt"),
        server=server,
        server_key=server_key,
        client=client,
        client_key=client_key,
        other_ca=str(folder / "other.crt"),
        elsewhere=elsewhere,
        elsewhere_key=elsewhere_key,
    )


def has_tls() -> bool:
    """Whether the server program was built with TLS: then it asks for a certificate."""
    program = find_program()
    if program is None:
        return False
    done = subprocess.run(
        [program, "--port", "0", "--tls-port", "1"], capture_output=True, timeout=30, check=False
    )
    return b"tls-cert-file" in done.stdout


@contextmanager
def tls_proxy(certificates: Certificates, *, mutual: bool) -> Iterator[int]:
    with (
        secured() as server,
        TLSProxy(
            server.port,
            certificate=certificates.server,
            key=certificates.server_key,
            client_ca=certificates.ca if mutual else None,
        ) as proxy,
    ):
        yield proxy.port


@contextmanager
def tls_server(certificates: Certificates, *, mutual: bool) -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    files = ["--tls-cert-file", certificates.server, "--tls-key-file", certificates.server_key]
    files += ["--tls-ca-cert-file", certificates.ca]
    files += ["--tls-auth-clients", "yes" if mutual else "no"]
    with secured("--tls-port", str(port), *files):
        yield port


@contextmanager
def secured(*arguments: str) -> Iterator[RedisServer]:
    """A server with a password, where one more user may do what a store needs."""
    with RedisServer(*arguments, password=f"default-{PASSWORD}") as server:
        with redis.Redis.from_url(server.url) as client:
            # What a store needs and no more: no CONFIG, no INFO, no FLUSHALL.
            rights = ("+@read", "+@write", "+@scripting", "+ping", "-@dangerous")
            client.execute_command(
                "ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "resetchannels", *rights
            )
        yield server


#: TLS by way of a proxy works with any server program; the program's own TLS where it has it.
KINDS: dict[str, Callable[..., AbstractContextManager[int]]] = {"proxy": tls_proxy}
if has_tls():
    KINDS["server"] = tls_server


@pytest.fixture(params=KINDS, scope="session")
def tls_port(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[int]:
    """The port of a server with TLS, a password and an ACL."""
    with KINDS[request.param](certificates, mutual=False) as port:
        yield port


@pytest.fixture(params=KINDS, scope="session")
def mutual_port(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[int]:
    """The same, but it requires a client certificate."""
    with KINDS[request.param](certificates, mutual=True) as port:
        yield port


@pytest.fixture
def locked_key(certificates: Certificates, tmp_path: Path) -> str:
    """The client's key, locked with a password."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(Path(certificates.client_key).read_bytes(), None)
    path = tmp_path / "locked.key"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hunter2"),
        )
    )
    return str(path)
