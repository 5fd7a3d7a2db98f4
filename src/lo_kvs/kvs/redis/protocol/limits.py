"""How large a value and a call may be for a server, asked before the first large one is sent.

A server that gets more closes the connection in the middle of the call. Without its limits that
looks like a lost connection: the call would be sent again until its deadline, and would break
the connection for all who wait behind it, each time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from hiredis import pack_command

from lo_kvs.kvs.errors import Refused, shorten
from lo_kvs.kvs.redis.protocol.commit_transaction import Transaction
from lo_kvs.kvs.redis.protocol.round_trips import RawConnection, reply_on

#: No server has a limit below this: both settings have a minimum of 1 MiB.
LARGE_BYTES_MIN: Final = 1_000_000
#: Where a server does not tell its limits: so often a large call may break the connection. The
#: server took the connection each time, so it is up; others wait behind the call.
BREAKS_MAX: Final = 3
#: What a call has besides its values, at most: names, lengths, the record.
OVERHEAD_BYTES: Final = 4096

_NAMES: Final = ("proto-max-bulk-len", "client-query-buffer-limit")


class Regroup(Exception):
    """The changes of a call are too much for one call, and each by itself is not."""


class ServerLimits(NamedTuple):
    """What a server takes.

    value_bytes  of one value (`proto-max-bulk-len`)
    call_bytes   of all values of one call (`client-query-buffer-limit`)
    """

    value_bytes: int
    call_bytes: int

    def check(self, place: str, call: Transaction) -> None:
        """Raises `Refused` where the server cannot take a change, `Regroup` where not all of them.

        Nothing has been sent then.
        """
        largest, total = call.sizes()
        if largest <= self.value_bytes and total + OVERHEAD_BYTES <= self.call_bytes:
            return
        if len(call.group) > 1:
            raise Regroup
        key = shorten(call.group[0][0])
        if largest > self.value_bytes:
            problem = f"{largest:,} bytes; the server takes {_of(self.value_bytes, 0)}"
        else:
            problem = f"{total:,} bytes in one change; the server takes {_of(self.call_bytes, 1)}"
        raise Refused(
            f"{place}: the value for {key} is too large: {problem}. Nothing was written; make the "
            "value smaller, or raise that setting of the server"
        )


async def ask_limits(connection: RawConnection) -> ServerLimits:
    """Ask the server. What it does not tell, as to a user without the right, has no limit."""
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
