"""How safe a change must be before its caller is told that it was made.

After a commit the writer waits, on the same connection, until replicas have it (WAIT), or
until it is on disk, here and there (WAITAOF). What the server does not confirm in time is
told as `NotReplicated`: the change is made all the same.
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
    aof       whether the server, and those replicas, must have it on disk, in their
              append-only files; needs WAITAOF (Redis 7.2)
    timeout   seconds that this is waited for
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
        """Seconds that a commit may take for it."""
        return self.timeout if self.waits else 0.0

    async def check(self, connection: RawConnection) -> None:
        """Before the first write on a connection: whether the server can confirm at all.

        Raises redis-py's ResponseError where it cannot.
        """
        try:
            # A connection that has written nothing is answered at once.
            await self._ask(connection, 0)
        except ResponseError as error:
            if "unknown command" in str(error) and self.aof:
                raise ResponseError(
                    "it has no WAITAOF, which `wait_aof` needs: Redis 7.2 or later. Nothing was "
                    "written; take the option away, or update the server"
                ) from error
            raise

    async def confirm(self, connection: RawConnection) -> NotReplicated | None:
        """Wait for what was written on this connection; what could not be confirmed in time."""
        try:
            on_disk, copies = await self._ask(connection, self.replicas)
        except ResponseError as error:
            # The server has become a replica, or the like, after it has made the call: to say
            # that it refused would be wrong. Sent again, the call finds its record, or not.
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
        """Wait, and tell whether it is on the server's disk, and how many replicas have it."""
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
