"""Durability: what a commit waits for before it is reported as made.

After a commit, the writer waits on the same connection until replicas have it (WAIT), or until
it is on the disks of the server and of replicas (WAITAOF). If this is not confirmed in time, the
caller gets `NotReplicated`; the change is made nevertheless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from hiredis import pack_command
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from lo_kvs.kvs.errors import KVSError, NotReplicated
from lo_kvs.kvs.redis.protocol.round_trips import ProtocolMismatch, RawConnection

WAIT_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True)
class Durability:
    """What a commit waits for.

    replicas  how many replicas must have it
    aof       whether the server and those replicas must have it on disk, in their
              append-only files; needs WAITAOF (Redis 7.2)
    timeout   how many seconds to wait
    """

    replicas: int = 0
    aof: bool = False
    timeout: float = WAIT_TIMEOUT_S

    def __post_init__(self) -> None:
        if self.replicas < 0:
            raise KVSError(f"`wait_replicas` must be 0 or more, got {self.replicas}")
        if not 0.001 <= self.timeout < float("inf"):
            raise KVSError(f"`wait_timeout` must be a millisecond or more, got {self.timeout} s")

    @property
    def waits(self) -> bool:
        """Whether there is anything to wait for."""
        return self.aof or self.replicas > 0

    @property
    def extra_s(self) -> float:
        """How many seconds longer a commit may take because of it."""
        return self.timeout if self.waits else 0.0

    async def check(self, connection: RawConnection) -> None:
        """Check on a new connection, before the first write, that the server supports it.

        Raises redis-py's ResponseError if not.
        """
        try:
            # A connection that has written nothing is answered at once.
            await self._ask(connection, 0)
        except ResponseError as error:
            if "unknown command" in str(error) and self.aof:
                raise ResponseError(
                    "the server has no WAITAOF, which `wait_aof` needs (Redis 7.2 or later). "
                    "Nothing was written. Remove the option, or update the server"
                ) from error
            raise

    async def confirm(self, connection: RawConnection) -> NotReplicated | None:
        """Wait for the writes of this connection; an error if they are not confirmed in time."""
        try:
            on_disk, copies = await self._ask(connection, self.replicas)
        except ResponseError as error:
            # The server became a replica, for example, after it executed the call. It was not
            # refused, so retry: the call finds its record, or is made.
            raise RedisConnectionError(f"while waiting for replicas: {error}") from error
        if copies >= self.replicas and (on_disk or not self.aof):
            return None
        return NotReplicated(
            self.replicas,
            copies,
            aof=on_disk if self.aof else None,
            waited_s=self.timeout,
        )

    async def _ask(self, connection: RawConnection, replicas: int) -> tuple[bool, int]:
        """Wait; return whether it is on the server's disk, and the number of replicas with it."""
        timeout_ms = round(self.timeout * 1000)
        words: Any = ("WAIT", replicas, timeout_ms)
        if self.aof:
            words = ("WAITAOF", 1, replicas, timeout_ms)
        await connection.send_packed_command([pack_command(words)], check_health=False)
        reply = await connection.read_response()
        if not self.aof and isinstance(reply, int):
            return False, reply
        if self.aof and isinstance(reply, list) and len(reply) == 2:
            return reply[0] >= 1, reply[1]
        raise ProtocolMismatch(str(words[0]), reply)


NO_WAITING: Final = Durability()
