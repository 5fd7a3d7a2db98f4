"""Servers with scripted replies, and a proxy that changes some replies of a real server."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis

#: The answer to a command, as it is sent; `None`: the connection is closed instead.
Answer = Callable[[Sequence[bytes]], bytes | None]
HELLO = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n"


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def served(talk: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a server that has `talk` with each connection, in a thread."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                talk(self.request)
            except OSError:
                return  # the client has gone

    with _Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def commands_of(connection: socket.socket) -> Iterator[list[bytes]]:
    """The commands that come, one after another."""
    reader = hiredis.Reader()
    while data := connection.recv(65_536):
        reader.feed(data)
        while (words := reader.gets()) is not False:
            yield words


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """The port of a server that is nothing but `answer`."""

    def talk(connection: socket.socket) -> None:
        for words in commands_of(connection):
            said = answer(words)
            if said is None:
                return
            connection.sendall(said)

    with served(talk) as port:
        yield port


@contextmanager
def in_front_of(
    port: int, answer: Callable[[Sequence[bytes]], bytes | str | None]
) -> Iterator[int]:
    """The port of a proxy: it passes on what `answer` answers "" to, and closes at `None`."""

    def talk(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as behind:
            for words in commands_of(connection):
                said = answer(words)
                if said is None:
                    return
                if isinstance(said, bytes):
                    connection.sendall(said)
                    continue
                packed: Any = tuple(words)
                behind.sendall(hiredis.pack_command(packed))
                connection.sendall(_one_reply(behind))

    with served(talk) as front:
        yield front


def _one_reply(connection: socket.socket) -> bytes:
    reader, data = hiredis.Reader(), b""
    while reader.gets() is False:
        more = connection.recv(65_536)
        if not more:
            raise ConnectionError("the server behind has gone")
        reader.feed(more)
        data += more
    return data
