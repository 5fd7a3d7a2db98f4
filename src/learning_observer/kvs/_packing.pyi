from typing import Any, final

from learning_observer.kvs.changes import Change, Guard
from learning_observer.kvs.packing import Begin, Name, Packed, WaitingChanges

@final
class Parts: ...

def change_of(
    guard: str, expected: bytes | Guard | None, puts: dict[str, bytes | None], /
) -> Change: ...
def pack(
    begin: Begin,
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
) -> Packed: ...
