"""Slots of a Redis cluster: which one a name lies in, and which node serves it."""

from __future__ import annotations

import functools
from binascii import crc_hqx
from typing import Final, TypeAlias

from lo_kvs.kvs.redis.protocol.round_trips import ProtocolMismatch
from lo_kvs.redis_connection.hosts import PORT_MAX

#: Where a node is: host and port.
Address: TypeAlias = tuple[str, int]

SLOTS: Final = 16_384


def slot_of(name: bytes) -> int:
    """The slot of a name in Redis: 0 to 16383.

    What stands between the first `{` and the next `}` decides, unless that is nothing.
    """
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name, 0) % SLOTS


@functools.lru_cache(SLOTS)
def tag_of(slot: int) -> str:
    """A short text that lies in `slot`, for names of our own: `{text}` in them puts them there.

    CRC16 is linear: that of two halves is the XOR of that of each, with zeros for the other.
    So the second half is looked up, where trying whole texts would hold everybody up at first.
    """
    endings = _endings()
    for number in range(256):
        start = b"%02x" % number
        end = endings.get(slot ^ slot_of(start + bytes(3)))
        if end is not None:
            return (start + end).decode()
    raise ValueError(f"no tag for slot {slot!r}: slots are 0 to {SLOTS - 1}")


@functools.cache
def _endings() -> dict[int, bytes]:
    ends = (b"%03x" % number for number in range(4096))
    return {slot_of(end): end for end in ends}


class SlotTable:
    """Which node is the primary of each slot, as far as is known."""

    def __init__(self) -> None:
        self._addresses: list[Address | None] = [None] * SLOTS
        self.primaries: tuple[Address, ...] = ()
        self.version = 0  # counts up with each change

    def address_of(self, slot: int) -> Address | None:
        """The primary of `slot`; `None` where no node serves it, or nobody has been asked."""
        return self._addresses[slot]

    def move(self, slot: int, address: Address) -> None:
        """A node said that `slot` has moved there."""
        if self._addresses[slot] != address:
            self._addresses[slot] = address
            self.version += 1
        if address not in self.primaries:
            self.primaries = (*self.primaries, address)

    def load(self, reply: object, *, asked: Address) -> None:
        """Take over what the node `asked` answered to CLUSTER SLOTS.

        An entry is the first slot, the last one, the primary, and its replicas. Raises
        `ProtocolMismatch` for anything else.
        """
        addresses: list[Address | None] = [None] * SLOTS
        if not isinstance(reply, list):
            raise ProtocolMismatch("CLUSTER SLOTS", reply)
        for entry in reply:
            match entry:
                case [int(first), int(last), [host, int(port), *_], *_] if (
                    0 <= first <= last < SLOTS and 0 <= port <= PORT_MAX
                ):
                    address = host_of(host, asked), port or asked[1]
                    addresses[first : last + 1] = [address] * (last - first + 1)
                case _:
                    raise ProtocolMismatch("CLUSTER SLOTS", reply)
        self.version += addresses != self._addresses
        self._addresses = addresses
        self.primaries = tuple(sorted({each for each in addresses if each is not None}))

    @property
    def unserved(self) -> int:
        """How many slots no node serves."""
        return self._addresses.count(None)


def host_of(told: object, asked: Address) -> str:
    """The host that a node told of another one.

    Where it tells none (nil, "" or "?"), it is the host of the node that was asked.
    """
    name = told.decode("utf-8", "replace") if isinstance(told, bytes) else told
    return name if isinstance(name, str) and name not in {"", "?"} else asked[0]
