from typing import Any, final

from lo_kvs.kvs.changes import Change, Guard
from lo_kvs.kvs.redis.protocol.packing import CommandHead, Name, PackedCommand, WaitingChanges

@final
class Parts: ...

def change_of(
    guard: str, expected: bytes | Guard | None, puts: dict[str, bytes | None], /
) -> Change: ...
def pack(
    begin: CommandHead,
    waiting: WaitingChanges,
    group: list[Any],
    prefix: bytes,
    record: bytes,
    numbers: tuple[int, ...],
    /,
    changes_max: int,
    bytes_max: int,
    large_bytes: int,
    name: Name | None = None,
) -> PackedCommand: ...
