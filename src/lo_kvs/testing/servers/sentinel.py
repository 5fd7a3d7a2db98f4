"""A primary, replicas and Sentinels for tests: real processes, gone afterwards.

    with SentinelSetup() as setup:
        settings = RedisSettings(sentinels=setup.addresses, sentinel_service=setup.service)
        setup.fail_over()

It needs a server program: in containers of their own the servers could not reach each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lo_kvs.testing.servers.process import ServerProcess, quoted
from lo_kvs.testing.servers.server import HOST, NoRedisServer, RedisServer, find_program

SERVICE: Final = "states"
_PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.05


class SentinelServer(RedisServer):
    """A Sentinel that watches the server on `primary_port`.

    password         what Sentinel's own clients must say
    primary_password what it says to the servers
    """

    def __init__(
        self,
        primary_port: int,
        *,
        quorum: int,
        down_after_ms: int,
        failover_timeout_ms: int,
        primary_password: str | None = None,
        password: str | None = None,
    ) -> None:
        super().__init__(password=password)
        self._lines = [
            f"sentinel monitor {SERVICE} {HOST} {primary_port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} {failover_timeout_ms}",
        ]
        if primary_password is not None:
            self._lines.append(f"sentinel auth-pass {SERVICE} {quoted(primary_password)}")
        if password is not None:  # the Sentinels ask each other with the same one
            self._lines += [
                f"requirepass {quoted(password)}",
                f"sentinel sentinel-pass {quoted(password)}",
            ]

    def _launch(self, port: int) -> ServerProcess:
        program = find_program()
        if program is None:
            raise NoRedisServer(
                "Sentinels need a server program on this machine; a container is not enough"
            )
        # A Sentinel writes what it learns into its file, and begins there when it is restarted.
        file = self.directory / "sentinel.conf"
        if not file.exists():
            file.touch(0o600)  # there are passwords in it
            file.write_text("\n".join([f"port {port}", f"bind {HOST}", *self._lines, ""]))
        try:
            return ServerProcess(program, ["--sentinel"], self.directory, configuration=file)
        except OSError as error:
            raise NoRedisServer(f"{program} cannot be started: {error}") from error


class SentinelSetup:
    """One primary with its replicas, and the Sentinels that choose another when it is down.

    password           of the servers; sentinel_password of the Sentinels
    down_after_ms      after so long without an answer a server counts as down
    """

    service = SERVICE

    def __init__(
        self,
        *,
        replicas: int = 2,
        sentinels: int = 3,
        password: str | None = None,
        sentinel_password: str | None = None,
        down_after_ms: int = 500,
        failover_timeout_ms: int = 1_500,
    ) -> None:
        self._replicas = replicas
        self._quorum = sentinels // 2 + 1
        self._password = password
        self._sentinel_password = sentinel_password
        self._down_after_ms = down_after_ms
        self._failover_timeout_ms = failover_timeout_ms
        self._sentinel_count = sentinels
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []
        self.sentinels: list[SentinelServer] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            login = [] if self._password is None else ["--masterauth", self._password]
            # A replica is fed at once, without the pause in which others could join it.
            login += ["--repl-diskless-sync-delay", "0"]
            for number in range(1 + self._replicas):
                of = ["--replicaof", HOST, str(self.servers[0].port)] if number else []
                server = RedisServer(*login, *of, password=self._password)
                self.servers.append(stack.enter_context(server))
            wait_until(
                lambda: self._in_step(self.servers[0], self._replicas), "the replicas to follow"
            )
            for _ in range(self._sentinel_count):
                sentinel = SentinelServer(
                    self.servers[0].port,
                    quorum=self._quorum,
                    down_after_ms=self._down_after_ms,
                    failover_timeout_ms=self._failover_timeout_ms,
                    primary_password=self._password,
                    password=self._sentinel_password,
                )
                self.sentinels.append(stack.enter_context(sentinel))
            self.wait_until_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The Sentinels, as `redis_sentinels` takes them."""
        return tuple(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)

    def primary(self) -> RedisServer:
        """The server that the first Sentinel holds to be the primary."""
        state = self._state(self.sentinels[0])
        return next(server for server in self.servers if server.port == state["port"])

    def fail_over(self) -> None:
        """Tell a Sentinel to promote a replica now, and wait until it has."""
        old = self.primary().port
        deadline = time.monotonic() + _PATIENCE_S
        with self._client(self.sentinels[0]) as client:
            while True:
                try:
                    client.execute_command("SENTINEL", "FAILOVER", SERVICE)
                    break
                except redis.ResponseError:  # a failover is under way, or no replica is fit yet
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(_POLL_S)
        wait_until(lambda: self.primary().port != old, "a replica to be promoted")

    def wait_until_ready(self) -> None:
        """Wait until every Sentinel knows the primary, its replicas and the other Sentinels."""
        wait_until(
            lambda: all(self._is_ready(sentinel) for sentinel in self.sentinels),
            "the Sentinels to know each other",
        )

    def _is_ready(self, sentinel: SentinelServer) -> bool:
        state = self._state(sentinel)
        others = int(state["num-other-sentinels"])
        return (
            set(state["flags"].split(",")) == {"master"}
            and others == self._sentinel_count - 1
            and int(state["num-slaves"]) == self._replicas
        )

    def _state(self, sentinel: SentinelServer) -> dict[str, Any]:
        with self._client(sentinel) as client:
            states: Any = client.sentinel_masters()
            state: dict[str, Any] = states[SERVICE]
            return state

    def wait_until_in_step(self, replicas: int) -> None:
        """Wait until so many replicas have all that the primary has."""
        wait_until(lambda: self._in_step(self.primary(), replicas), "the replicas to follow")

    def _in_step(self, server: RedisServer, replicas: int) -> bool:
        with self._client(server) as client:
            info: Any = client.info("replication")
        lines = [info[f"slave{number}"] for number in range(info["connected_slaves"])]
        offset = info["master_repl_offset"]
        in_step = [line["state"] == "online" and line["offset"] == offset for line in lines]
        return in_step.count(True) == replicas

    def _client(self, server: RedisServer) -> redis.Redis:
        return redis.Redis.from_url(
            server.url, retry=Retry(NoBackoff(), 0), socket_timeout=5, socket_connect_timeout=5
        )


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for `condition`; servers that do not answer yet count as "not yet".

    Raises NoRedisServer after a minute.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            if condition():
                return
        except (redis.RedisError, OSError, KeyError):
            pass
        if time.monotonic() > deadline:
            raise NoRedisServer(f"timed out after {_PATIENCE_S:g} s waiting for {what}")
        time.sleep(_POLL_S)
