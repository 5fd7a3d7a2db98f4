"""Errors of reducers themselves, not of the store."""

from __future__ import annotations

from lo_kvs.kvs.errors import KVSError, shorten


class ReducerTimedOut(KVSError, TimeoutError):
    """A reducer took longer for one event than its time limit. Nothing of the event was written.

    The state is unchanged, and later events are processed.

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
            f"reducer {self.reducer} took longer than {self.timeout:g} s for one event of "
            f"{shorten(self.key)}; nothing of the event was written. To change the limit, set "
            "`reducers.reducer_timeout` in the settings, or `timeout` of the reducer's decorator"
        )
