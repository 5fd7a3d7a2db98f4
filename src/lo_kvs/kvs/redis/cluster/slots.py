"""SlotTable: the slot of a name in a Redis cluster, and the node that serves a slot."""

from __future__ import annotations

import functools
from binascii import crc_hqx
from typing import Final, TypeAlias

from lo_kvs.kvs.redis.protocol.round_trips import ProtocolMismatch
from lo_kvs.redis_connection.hosts import PORT_MAX

#: The host and port of a node.
Address: TypeAlias = tuple[str, int]

SLOTS: Final = 16_384


def slot_of(name: bytes) -> int:
    """The slot of a name in Redis: 0 to 16383.

    If there is text between the first `{` and the next `}`, only that text is hashed.
    """
    start = name.find(b"{")
    if start >= 0:
        end = name.find(b"}", start + 1)
        if end > start + 1:
            name = name[start + 1 : end]
    return crc_hqx(name, 0) % SLOTS


@functools.lru_cache(SLOTS)
def tag_of(slot: int) -> str:
    """A short hash tag for `slot`: a name that contains `{tag}` is in this slot.

    CRC16 is linear: the CRC of two halves is the XOR of the CRCs of each half padded with zeros.
    So the second half is looked up in a table; trying all tags would block the event loop.
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
    """The primary node of each slot, as far as known."""

    def __init__(self) -> None:
        self._addresses: list[Address | None] = [None] * SLOTS
        self.primaries: tuple[Address, ...] = ()
        self.version = 0  # incremented by each change

    def address_of(self, slot: int) -> Address | None:
        """The primary of `slot`; `None` if no node serves it, or the table is not loaded."""
        return self._addresses[slot]

    def move(self, slot: int, address: Address) -> None:
        """Record that `slot` has moved to `address`."""
        if self._addresses[slot] != address:
            self._addresses[slot] = address
            self.version += 1
        if address not in self.primaries:
            self.primaries = (*self.primaries, address)

    def load(self, reply: object, *, asked: Address) -> None:
        """Load the reply of the node `asked` to CLUSTER SLOTS.

        Each entry has the first slot, the last slot, the primary, and its replicas. Raises
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
        """The number of slots that no node serves."""
        return self._addresses.count(None)


def host_of(host: object, asked: Address) -> str:
    """The host of a node, as another node reported it.

    If it reported none (nil, "" or "?"), the host of the node that was asked.
    """
    name = host.decode("utf-8", "replace") if isinstance(host, bytes) else host
    return name if isinstance(name, str) and name not in {"", "?"} else asked[0]
