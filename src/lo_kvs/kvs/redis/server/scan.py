"""List the names of a server's keys with SCAN, which does not block the server."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from typing import Any

from hiredis import pack_command

from lo_kvs.kvs.batching.deadlines import RetryBudget
from lo_kvs.kvs.redis.protocol.round_trips import ProtocolMismatch, RawConnection, good, reply_on
from lo_kvs.kvs.redis.server.connection import Connection
from lo_kvs.redis_connection import RedisConnection


async def scan_strings(
    connection: RedisConnection, pattern: str, budget: RetryBudget
) -> AsyncGenerator[bytes, None]:
    """Every string key that matches `pattern`; some may occur more than once.

    Uses its own connection. Raises `Unavailable`.
    """
    conn = Connection(connection)
    cursor = b"0"
    try:
        while True:
            step = functools.partial(_scan, cursor=cursor, pattern=pattern)
            with budget.step(lambda: connection.failed_attempts) as deadline:
                cursor, names = await conn.run(step, deadline=deadline, writes=False)
            for name in names:
                yield name
            if cursor == b"0":
                return
    finally:
        await conn.aclose()


async def _scan(
    connection: RawConnection, *, cursor: bytes, pattern: str
) -> tuple[bytes, list[bytes]]:
    """One step: the next cursor, and some keys."""
    words: Any = ("SCAN", cursor, "MATCH", pattern, "COUNT", 1000, "TYPE", "string")
    await connection.send_packed_command([pack_command(words)], check_health=False)
    (reply,) = good([await reply_on(connection)])
    match reply:
        # The same cursor again would return the same keys forever.
        case [bytes(following), list(names)] if (
            following.isdigit()
            and (following == b"0" or following != cursor)
            and all(isinstance(name, bytes) for name in names)
        ):
            return following, names
    raise ProtocolMismatch("SCAN", reply)
