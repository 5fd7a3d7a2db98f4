"""Replicas of test servers: replication, promotion, and network partitions.

    with RedisServer() as primary, RedisServer() as replica:
        follow(replica, primary)
        wait_until_replicated(primary, replica)
        with cut_off(replica):
            ...                     # the primary goes on, the replica hears nothing of it
            promote(replica)

The servers are real, and replicate as Redis does: asynchronously. Where the primary has a
password, the replica needs it too: `RedisServer("--masterauth", password)`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from lo_kvs.testing.servers.server import HOST, RedisServer

_WAIT_S = 20.0
_POLL_S = 0.005
_END = "\r\n"


class ReplicationFailed(RuntimeError):
    """A replica did not come as far as it was waited for, or a server refused to change roles."""


def follow(replica: RedisServer, primary: RedisServer) -> None:
    """Make `replica` a replica of `primary`, and wait until it holds what the primary holds.

    What it held before is gone then. Clients stay connected to it; it refuses their writes
    (READONLY) from the first moment on. Raises ReplicationFailed after 20 s.
    """
    # Without a file between, Redis 7 waits 5 s for more replicas before it copies, and up to a
    # second after it before it sends what was written since.
    _ask(primary, "CONFIG", "SET", "repl-diskless-sync", "no")
    _ask(replica, "REPLICAOF", HOST, str(primary.port))
    wait_until_replicated(primary, replica)
    _wait(
        lambda: any(
            f"port={replica.port},state=online" in line for line in replication(primary).values()
        ),
        lambda: f"{replica.port} is not online: {replication(primary)}",
    )


def promote(replica: RedisServer) -> None:
    """Make `replica` a primary, with what it holds now."""
    _ask(replica, "REPLICAOF", "NO", "ONE")


def wait_until_replicated(primary: RedisServer, replica: RedisServer) -> None:
    """Wait until `replica` has all that `primary` had done when this was called.

    Raises ReplicationFailed after 20 s.
    """
    wanted = int(replication(primary)["master_repl_offset"])

    def has_it() -> bool:
        found = replication(replica)
        return (
            found.get("master_port") == str(primary.port)
            and found.get("master_link_status") == "up"
            and int(found["slave_repl_offset"]) >= wanted
        )

    _wait(has_it, lambda: f"wanted offset {wanted} of {primary.port}: {replication(replica)}")


@contextmanager
def cut_off(replica: RedisServer) -> Iterator[None]:
    """Let `replica` hear nothing of its primary any more, as in a partition, and keep its data.

    It stays a replica, of a place where nobody answers, until it is promoted or follows
    somebody again; the end of the block only ends that place.
    """
    with socket.create_server((HOST, 0)) as silent:  # connects, and never says a word
        _ask(replica, "REPLICAOF", HOST, str(silent.getsockname()[1]))
        yield


def replication(server: RedisServer) -> dict[str, str]:
    """What INFO says of the server's role, its primary or replicas, and its offset."""
    lines = _ask(server, "INFO", "replication").split(_END)
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _wait(reached: Callable[[], bool], state: Callable[[], str]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not reached():
        if time.monotonic() > deadline:
            raise ReplicationFailed(f"not within {_WAIT_S:g} s; {state()}")
        time.sleep(_POLL_S)


def _ask(server: RedisServer, *words: str) -> str:
    """The reply to one command, as it came. Raises ReplicationFailed where the server refuses.

    A plain socket rather than a client, which would try again on its own.
    """
    password = urlsplit(server.url).password
    login = [] if password is None else [("AUTH", password)]
    commands = [*login, words, ("QUIT",)]
    with socket.create_connection((HOST, server.port), timeout=_WAIT_S) as connection:
        connection.sendall("".join(map(_packed, commands)).encode())
        reply = b""
        while part := connection.recv(65_536):
            reply += part
    text = reply.decode("utf-8", "replace").removeprefix(f"+OK{_END}" if login else "")
    if text.startswith("-"):
        raise ReplicationFailed(f"{' '.join(words)} on port {server.port}: {text.split(_END)[0]}")
    return text.removesuffix(f"+OK{_END}")


def _packed(words: tuple[str, ...]) -> str:
    parts = [f"${len(word.encode())}{_END}{word}{_END}" for word in words]
    return f"*{len(words)}{_END}{''.join(parts)}"
