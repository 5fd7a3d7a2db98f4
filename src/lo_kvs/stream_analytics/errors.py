"""What goes wrong with a reducer itself, and not with its store."""

from __future__ import annotations

from lo_kvs.kvs.errors import KVSError, shorten


class ReducerTimedOut(KVSError, TimeoutError):
    """A reducer took longer for one event than its time limit. Nothing of it was written.

    The state is what it was before the event, and the events after it go on.

    reducer, key  the reducer's name, and the key of the Internal state
    timeout       the limit in seconds
    """

    def __init__(self, reducer: str, key: str, timeout: float) -> None:
        super().__init__(reducer, key, timeout)
        self.reducer = reducer
        self.key = key
        self.timeout = timeout

    def __str__(self) -> str:
        return (
            f"the reducer {self.reducer} took longer than {self.timeout:g} s for one event, on "
            f"{shorten(self.key)}; nothing of the event was written (see `reducer_timeout` in the "
            "`reducers` block of the settings, and `timeout` of the reducer's decorator)"
        )
