"""ServerLimits: the size limits of a server, asked before the first large call is sent.

A server closes the connection in the middle of a call that is too large. Without knowing the
limits, that looks like a lost connection: the call would be retried until its deadline, and each
retry would break the connection for the calls queued behind it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hiredis import pack_command

from lo_kvs.kvs.errors import Refused, shorten
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction
from lo_kvs.kvs.redis.protocol.round_trips import RawConnection, reply_on

#: No server has a lower limit: both settings have a minimum of 1 MiB.
LARGE_BYTES_MIN: Final = 1_000_000
#: How often a large call may break the connection if the limits are unknown. The server accepts
#: connections, so it is up, and other calls are queued behind this one.
BREAKS_MAX: Final = 3
#: The maximum size of a call without its values: names, lengths, the record.
OVERHEAD_BYTES: Final = 4096

_NAMES: Final = ("proto-max-bulk-len", "client-query-buffer-limit")


class Regroup(Exception):
    """The changes of a call are too large together, but each one fits into a call."""


class ServerLimits(NamedTuple):
    """The size limits of a server.

    value_bytes  maximum size of one value (`proto-max-bulk-len`)
    call_bytes   maximum size of all values of one call (`client-query-buffer-limit`)
    """

    value_bytes: int
    call_bytes: int

    def check(self, place: str, call: Transaction) -> None:
        """Raises `Refused` if a change is too large, `Regroup` if only all together are.

        In both cases nothing was sent.
        """
        largest, total = call.sizes()
        if largest <= self.value_bytes and total + OVERHEAD_BYTES <= self.call_bytes:
            return
        if len(call.group) > 1:
            raise Regroup
        key = shorten(call.group[0][0])
        if largest > self.value_bytes:
            problem = f"{largest:,} bytes; the server's limit is {_of(self.value_bytes, 0)}"
        else:
            problem = (
                f"{total:,} bytes in one change; the server's limit is {_of(self.call_bytes, 1)}"
            )
        raise Refused(
            f"{place}: the value for {key} is too large: {problem}. Nothing was written. Make the "
            "value smaller, or raise this setting of the server"
        )


async def ask_limits(connection: RawConnection) -> ServerLimits:
    """Ask the server. A limit that it does not report (no permission) counts as unlimited."""
    commands = []
    for name in _NAMES:
        words: Any = ("CONFIG", "GET", name)  # hiredis's stub takes tuples of one item only
        commands.append(pack_command(words))
    await connection.send_packed_command(commands, check_health=False)
    return ServerLimits(*[_number_in(await reply_on(connection)) for _ in _NAMES])


def _number_in(reply: object) -> int:
    values = list(reply.values()) if isinstance(reply, Mapping) else reply
    if not isinstance(values, list) or not values:
        return sys.maxsize
    last = values[-1]
    number = int(last) if isinstance(last, bytes) and last.isdigit() else 0
    return number or sys.maxsize


def _of(limit: int, at: int) -> str:
    return f"{limit:,} ({_NAMES[at]})"
