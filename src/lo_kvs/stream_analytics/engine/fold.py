"""A fold: reduces events one after another on one state, to be written once.

The results are the same as if each event had been written by itself: a reducer gets the state
as it would be read from the store, each caller gets the External state as of its event or its
own error, and an event that fails changes nothing.

Nothing here waits. What a reducer returned is copied if it is plain JSON, otherwise encoded and
decoded, so that no part of a state is shared with a reducer, an event or a caller.
"""

from __future__ import annotations

import dis
from collections.abc import Awaitable, Callable
from types import CodeType
from typing import Any, Final, NamedTuple, TypeAlias

from lo_kvs.kvs.changes import Change
from lo_kvs.kvs.codec import NOT_PLAIN, encode_plain, encode_state, plain_copy
from lo_kvs.kvs.codec.values import decode
from lo_kvs.kvs.errors import NotJSON
from lo_kvs.kvs.redis.protocol.packing import change_of

Event: TypeAlias = Any
ReducerFunction: TypeAlias = Callable[[Event, Any], Awaitable[tuple[Any, Any]]]

#: The state is not decoded yet.
UNREAD: Final[Any] = object()


class Reducer:
    """A reducer function with its null state.

    name      the function's name in keys and messages
    null      the JSON text of its null state
    awaits    whether it has an `await`: then it runs in a task, and may wait
    timeout   seconds that it may take for one event, if it awaits; `None`: the setting applies
    declines  whether it ever left one of its states unwritten: then it gets copies, as a state
              that was passed to it would have to be computed again
    """

    __slots__ = ("awaits", "declines", "function", "name", "null", "timeout")

    def __init__(
        self, name: str, function: ReducerFunction, null: bytes, timeout: float | None = None
    ) -> None:
        self.name = name
        self.function = function
        self.null = null
        self.awaits = _awaits(function)
        self.timeout = timeout
        self.declines = False


class StateKeys(NamedTuple):
    """The two keys of one state."""

    internal: str
    external: str


class Fold:
    """The intermediate result of folding events into one state. Each slot reuses one object.

    data    the text of the Internal state, `None` if absent; an older text if `state` is newer
    state   the state as an object that nothing else refers to, or UNREAD
    copies  whether reducers get copies from now on, so that no state is lost
    """

    __slots__ = (
        "_base",
        "_external",
        "_external_key",
        "_internal_key",
        "_reducer",
        "_shown_lent",
        "_stale",
        "_writes_external",
        "_writes_internal",
        "copies",
        "data",
        "state",
    )

    def __init__(self, reducer: Reducer, keys: StateKeys) -> None:
        self._reducer = reducer
        self._internal_key, self._external_key = keys
        self.begin(None, UNREAD)

    def begin(self, data: bytes | None, state: Any) -> None:
        """Start from the stored `data`; `state` is the same as an object, or UNREAD."""
        self._base = data
        self._external: Any = None
        self._stale = False  # `state` is newer than `data`
        self._shown_lent = False  # the External state to write is the object the reducer got
        self._writes_internal = False
        self._writes_external = False
        self.copies = self._reducer.declines
        self.data = data
        self.state: Any = state

    def restart(self) -> None:
        """Start again from the same state; from now on reducers get copies."""
        self.begin(self._base, UNREAD)
        self.copies = True

    def next_state(self) -> Any:
        """The state for the next event; the reducer may modify it.

        It is the object itself, not a copy. After a reducer fails, the state is restored from
        its text, or by reducing the earlier events again.
        """
        state = self.state
        if state is UNREAD:
            data = self._reducer.null if self.data is None else self.data
            state = decode(self._internal_key, data)
        if self.copies:
            copy = plain_copy(state)
            if copy is not NOT_PLAIN:  # old data may contain values that can only be read
                self.state = state
                return copy
        self._shown_lent = self._stale and self._external is state
        self.state = UNREAD
        return state

    def is_lost(self) -> bool:
        """Whether a reducer got a state that exists as no text, and returned no newer one."""
        return self._shown_lent or (self._stale and self.state is UNREAD)

    def apply(  # noqa: PLR0912 - the cases of one pair, side by side
        self, result: Any, wanted: bool, internal_owned: bool = False, external_owned: bool = False
    ) -> Any:
        """Apply what the reducer returned for an event.

        Returns the External state for the caller if it is `wanted`, or `False` if the reducer
        wrote none. An owned half is plain JSON that nothing else refers to, and is not copied.
        Raises `NotJSON`, or `TypeError` if the result is not a pair; then nothing has changed.
        """
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise TypeError(
                f"{self._reducer.name} must return (internal, external), "
                f"got {type(result).__name__}"
            )
        internal, external = result
        data: bytes | None = None
        state: Any = UNREAD
        shown: Any = False
        shown_data: Any = None
        if internal is not False:
            state = internal if internal_owned else plain_copy(internal)
            if state is NOT_PLAIN:
                data, state = _text(self._internal_key, internal), UNREAD
        if external is internal and external is not False:
            shown_data = state if data is None else data
            if wanted:
                shown = plain_copy(internal) if data is None else decode(self._external_key, data)
        elif external is not False:
            shown = shown_data = external if external_owned else plain_copy(external)
            if shown is NOT_PLAIN:
                shown_data = _text(self._external_key, external)
                shown = decode(self._external_key, shown_data) if wanted else False
        # Both halves are JSON: nothing below fails.
        if internal is not False:
            self._writes_internal = True
            self._stale = data is None
            self.state = state
            if data is not None:
                self.data = data
        else:
            self._reducer.declines = True
            if self.data is None and not self._stale:
                # A first event writes the null state even if its reducer wrote none.
                self._writes_internal = True
                self.data = self._reducer.null
        if external is not False:
            self._writes_external = True
            self._external = shown_data
            self._shown_lent = False
        else:
            self._reducer.declines = True
        return shown

    def change(self, verify: bool) -> Change | None:
        """The change that writes the result, guarded by the state at the beginning.

        The change takes over that data, so no further event can be reduced. If there is nothing
        to write: `None`, or with `verify` a change that only checks that the state is unchanged.
        """
        puts: dict[str, bytes | None] = {}
        if self._writes_internal:
            if self._stale:
                self.data = encode_plain(self.state)
                if self._external is self.state:
                    self._external = self.data  # one object, encoded once and sent once
                self._stale = False
            puts[self._internal_key] = self.data
        if self._writes_external:
            external = self._external
            puts[self._external_key] = (
                external if type(external) is bytes else encode_plain(external)
            )
        self._external = None  # only the change refers to it now
        if not puts and not verify:
            return None
        base, self._base = self._base, None
        return change_of(self._internal_key, base, puts)


def _awaits(function: ReducerFunction) -> bool:
    """Whether a coroutine function contains an `await`, by its bytecode."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return True
    return any(step.opname in {"GET_AWAITABLE", "GET_AITER"} for step in dis.get_instructions(code))


def _text(key: str, value: object) -> bytes:
    try:
        return encode_state(value)[0]
    except NotJSON as error:
        raise NotJSON(error.path, error.reason, key) from None
