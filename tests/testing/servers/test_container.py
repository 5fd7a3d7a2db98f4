"""The server in a container, with a stand-in for the engine: a process that sees other paths."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from testcontainers.core import container as testcontainers_module

from lo_kvs.testing.servers import server as server_module
from lo_kvs.testing.servers.server import NoRedisServer, RedisServer, find_program


class ContainerStandIn:
    """What of testcontainers' DockerContainer is used, on a local process."""

    started: list[ContainerStandIn]  # set by the fixture

    def __init__(self, image: str) -> None:
        assert image.startswith("redis:")
        self.attrs: dict[str, Any] = {}

    def with_command(self, command: list[str]) -> Self:
        self.command = command
        return self

    def with_volume_mapping(self, host: str, container: str, mode: str) -> Self:
        assert mode == "rw"
        self.host, self.folder = host, container
        return self

    def with_kwargs(self, **kwargs: object) -> Self:
        assert set(kwargs) == {"user"}
        return self

    def start(self) -> Self:
        _, configuration, *arguments = self.command
        configuration = configuration.replace(self.folder, self.host)
        local = [self.host if word == self.folder else word for word in arguments]
        local = ["127.0.0.1" if word == "0.0.0.0" else word for word in local]
        program = find_program()
        assert program is not None
        self.log = Path(self.host, "stand-in.log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, configuration, *local], stdout=log, stderr=log
            )
        self.attrs = {"State": {"Pid": self.process.pid}}
        self.started.append(self)
        return self

    def get_wrapped_container(self) -> WrappedStandIn:
        return WrappedStandIn(self)

    def get_logs(self) -> tuple[bytes, bytes]:
        return self.log.read_bytes(), b""

    def stop(self, *, force: bool = True) -> None:
        if force:
            self.process.kill()
        self.process.wait()


class WrappedStandIn:
    def __init__(self, container: ContainerStandIn) -> None:
        self.attrs = container.attrs
        self.process = container.process

    def reload(self) -> None:
        self.status = "running" if self.process.poll() is None else "exited"

    def stop(self, timeout: int) -> None:
        self.process.terminate()
        self.process.wait(timeout)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ContainerStandIn]:
    ContainerStandIn.started = []
    monkeypatch.setattr(testcontainers_module, "DockerContainer", ContainerStandIn)
    monkeypatch.setattr(server_module, "find_program", lambda: None)
    monkeypatch.setattr(server_module, "container_engine_answers", lambda: True)
    return ContainerStandIn.started


def test_server_in_a_container_serves_and_is_removed(started: list[ContainerStandIn]) -> None:
    with RedisServer(password="secret") as server:
        (container,) = started
        assert server.pid == container.process.pid
        assert vars(container)["ports"] == {f"{server.port}/tcp": ("127.0.0.1", server.port)}
        with redis.Redis.from_url(server.url) as client:
            assert client.ping()
    assert container.process.returncode == 0


def test_files_outlive_the_container(started: list[ContainerStandIn]) -> None:
    with RedisServer("--appendonly", "yes") as server:
        port = server.port
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "kept")
        server.kill()
        server.start()
        assert server.port == port
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") == b"kept"
    assert len(started) == 2


def test_container_that_exits_is_reported_with_its_log(
    started: list[ContainerStandIn],
) -> None:
    with pytest.raises(NoRedisServer, match="no-such-option"):
        RedisServer("--no-such-option", "1").start()


def test_foreign_server_is_not_taken_for_the_container(
    started: list[ContainerStandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(program=find_program()) as other:
        monkeypatch.setattr(server_module, "_free_port", lambda: other.port)
        with pytest.raises(NoRedisServer, match="no free port"):
            RedisServer("--port", "0", "--unixsocket", f"{other.directory}/socket").start()
