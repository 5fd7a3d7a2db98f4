"""A Redis server in a container, for machines that have an engine and no server program.

Needs `testcontainers`, which brings `docker`; both are in the `test` extra and are imported only
here, once nothing else was found.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lo_kvs.testing.servers.process import write_options

IMAGE = "redis:7-alpine"
_FOLDER = "/data"  # where the image expects it


def container_engine_answers() -> bool:
    """Whether there is a container engine at work.

    The engine is asked: a `docker` program on PATH says nothing about an engine behind it.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        return False
    try:
        engine = docker.from_env(timeout=2)
        try:
            engine.ping()
        finally:
            engine.close()
    except (OSError, DockerException):
        return False
    return True


class ServerContainer:
    """A Redis server in a container, on `port` of 127.0.0.1, with its files in `directory`.

    testcontainers' reaper ends it where this process cannot. Raises what `docker` raises where
    the image cannot be had or the container cannot start.
    """

    def __init__(self, arguments: list[str], port: int, directory: Path) -> None:
        from testcontainers.core.container import DockerContainer

        # In its own process namespace every server has pid 1. The name of the configuration
        # file stands in INFO too, and this one nobody else has.
        self._name = f"{secrets.token_hex(8)}.conf"
        options = ["--save", "", "--appendonly", "no", "--port", str(port)]
        network = ["--bind", "0.0.0.0", "--protected-mode", "no"]  # noqa: S104 - the container's own
        write_options(directory / self._name, [*options, *network, *arguments])
        configuration = f"{_FOLDER}/{self._name}"
        self._container = (
            DockerContainer(IMAGE)
            .with_command(["redis-server", configuration, "--dir", _FOLDER])
            .with_volume_mapping(str(directory), _FOLDER, "rw")
            .with_kwargs(user=f"{os.getuid()}:{os.getgid()}")  # else the files are not ours
        )
        # with_bind_ports would publish the port on every interface of the machine.
        vars(self._container)["ports"] = {f"{port}/tcp": ("127.0.0.1", port)}
        self._container.start()
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        self.pid = int(wrapped.attrs["State"]["Pid"])

    def running(self) -> bool:
        """Whether the container has not ended."""
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return bool(wrapped.status == "running")

    def is_ours(self, info: str) -> bool:
        """Whether the reply to INFO came from the server in this container."""
        return f"/{self._name}" in info

    def log(self) -> str:
        """What the server printed."""
        return b"".join(self._container.get_logs()).decode("utf-8", "replace")

    def stop(self) -> None:
        """Ask the server to end, and remove the container."""
        self._container.get_wrapped_container().stop(timeout=10)
        self._container.stop()

    def kill(self) -> None:
        """End the server with SIGKILL, and remove the container."""
        self._container.stop(force=True)
