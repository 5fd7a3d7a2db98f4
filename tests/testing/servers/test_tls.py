"""TLS in front of a plain server: who gets in, and what is carried."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from lo_kvs.testing import TLSProxy
from lo_kvs.testing.servers.server import RedisServer

PING = b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str, str]:
    """PEM files of a CA, of a certificate for this machine, and of its key."""
    ca = trustme.CA()
    made = ca.issue_cert("localhost")
    paths = [tmp_path / name for name in ("ca", "certificate", "key")]
    ca.cert_pem.write_to_path(paths[0])
    made.cert_chain_pems[0].write_to_path(paths[1])
    made.private_key_pem.write_to_path(paths[2])
    return str(paths[0]), str(paths[1]), str(paths[2])


def ask(port: int, context: ssl.SSLContext, request: bytes) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(request)
        reply = b""
        while part := connection.recv(65_536):
            reply += part
        return reply


def is_let_in(port: int, context: ssl.SSLContext) -> bool:
    """Whether PING is answered. Who is not let in meets an alert, a reset, or the end."""
    try:
        return ask(port, context, PING) == b"+PONG\r\n+OK\r\n"
    except OSError:
        return False


def test_carries_both_ways_and_ends_with_either(
    redis_server: RedisServer, files: tuple[str, str, str]
) -> None:
    ca, certificate, key = files
    value = os.urandom(300_000)
    request = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s\r\n" % (len(value), value)
    request += b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nQUIT\r\n"
    with TLSProxy(redis_server.port, certificate=certificate, key=key) as proxy:
        context = ssl.create_default_context(cafile=ca)
        reply = ask(proxy.port, context, request)
        assert reply == b"+OK\r\n$%d\r\n%s\r\n+OK\r\n" % (len(value), value)
        assert proxy.connections == 1
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(proxy.port, ssl.create_default_context(), b"")
        assert proxy.connections == 1
    with pytest.raises(ConnectionRefusedError):
        ask(proxy.port, context, b"")


def test_rejects_clients_without_a_certificate(
    redis_server: RedisServer, files: tuple[str, str, str]
) -> None:
    ca, certificate, key = files
    with TLSProxy(redis_server.port, certificate=certificate, key=key, client_ca=ca) as proxy:
        context = ssl.create_default_context(cafile=ca)
        assert not is_let_in(proxy.port, context)
        context.load_cert_chain(certificate, key)
        assert is_let_in(proxy.port, context)
        assert proxy.connections == 1


def test_stopped_server(files: tuple[str, str, str]) -> None:
    ca, certificate, key = files
    with RedisServer() as server:
        port = server.port
    with TLSProxy(port, certificate=certificate, key=key) as proxy:
        context = ssl.create_default_context(cafile=ca)
        assert not is_let_in(proxy.port, context)


def test_certificate_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(ssl.SSLError):
        TLSProxy(1, certificate=tmp_path / "text", key=tmp_path / "text")
