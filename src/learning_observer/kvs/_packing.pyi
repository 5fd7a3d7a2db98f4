from typing_extensions import disjoint_base

from learning_observer.kvs.packing import Name, WaitingChange, WaitingChanges

@disjoint_base
class Buffer: ...

def pack(
    waiting: WaitingChanges,
    group: list[WaitingChange],
    prefix: bytes,
    record: bytes,
    numbers: tuple[int, ...],
    /,
    changes_max: int,
    bytes_max: int,
    name: Name | None = None,
) -> tuple[int, bytes]: ...
