"""A fold: events reduced one after another on one state, to be written once.

Everybody sees what they would have seen if each event had been written by itself: a reducer
gets the state as it would be read from the store, each caller gets the External state as of
its event, or its own error, and an event that fails changes nothing.

Nothing here waits. What a reducer returned is copied, where a shallow look shows that this
is enough, and else written as JSON text and read again, so that no part of a state belongs
to a reducer, an event or a caller as well.
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

#: Stands for a state that has to be read from its text first.
UNREAD: Final[Any] = object()


class Reducer:
    """A reducer function, and how its states begin.

    name      the function's name in keys and messages
    null      the JSON text of its null state
    awaits    whether it has an `await`: then it runs in a task, and may wait
    timeout   seconds that it may take for one event, if it awaits; `None`: as the settings say
    declines  whether it has ever left one of its states unwritten: then it gets copies, as
              what was lent to it would have to be made again
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
    """What events have made of one state so far. One for each state, used again and again.

    data      the text of the Internal state, `None` where there is none; when `state` is
              newer, it is what the text was before
    state     that state as an object that nobody else holds, or UNREAD
    copies    whether reducers get copies from here on, so that no state is lost
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
        """What is stored is `data`, and `state` says the same as an object, or is UNREAD."""
        self._base = data
        self._external: Any = None
        self._stale = False  # `state` is newer than `data`
        self._shown_lent = False  # the External state to be written is the object that is lent
        self._writes_internal = False
        self._writes_external = False
        self.copies = self._reducer.declines
        self.data = data
        self.state: Any = state

    def begin_again(self) -> None:
        """Nothing has been reduced yet; from here on reducers get copies."""
        self.begin(self._base, UNREAD)
        self.copies = True

    def next_state(self) -> Any:
        """The state for the next event; the reducer may do with it what it likes.

        It is the held object itself, lent: what a reducer that fails makes of it is made
        good from the text, or by reducing the events before it once more.
        """
        state = self.state
        if state is UNREAD:
            data = self._reducer.null if self.data is None else self.data
            state = decode(self._internal_key, data)
        if self.copies:
            copy = plain_copy(state)
            if copy is not NOT_PLAIN:  # old data can hold what is read and not written
                self.state = state
                return copy
        self._shown_lent = self._stale and self._external is state
        self.state = UNREAD
        return state

    def is_lost(self) -> bool:
        """Whether a reducer was lent what no text says, and did not give back something newer."""
        return self._shown_lent or (self._stale and self.state is UNREAD)

    def apply(  # noqa: PLR0912 - the cases of one pair, side by side
        self, result: Any, wanted: bool, internal_owned: bool = False, external_owned: bool = False
    ) -> Any:
        """Take over what the reducer returned for an event. Returns the External state for
        the caller, if it is wanted, or `False` where the reducer wrote none.

        A half that is owned is plain JSON that nobody else holds, and is not copied. Raises
        `NotJSON`, or `TypeError` where it is no pair; then nothing has changed.
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
        # Both halves are JSON: from here on nothing fails.
        if internal is not False:
            self._writes_internal = True
            self._stale = data is None
            self.state = state
            if data is not None:
                self.data = data
        else:
            self._reducer.declines = True
            if self.data is None and not self._stale:
                # A first event leaves the null state, even if its reducer wrote none.
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
        """The change that writes it all, guarded by what the state was at the beginning.

        What it was is the change's from here on: no event can be reduced any more.
        Where there is nothing to write: `None`, or, with `verify`, a change that only looks
        whether the state still is what it was.
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
        self._external = None  # it is in the change now, and no state keeps it
        if not puts and not verify:
            return None
        base, self._base = self._base, None
        return change_of(self._internal_key, base, puts)


def _awaits(function: ReducerFunction) -> bool:
    """Whether a coroutine function can wait for anything, by its instructions."""
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return True
    return any(step.opname in {"GET_AWAITABLE", "GET_AITER"} for step in dis.get_instructions(code))


def _text(key: str, value: object) -> bytes:
    try:
        return encode_state(value)[0]
    except NotJSON as error:
        raise NotJSON(error.path, error.reason, key) from None
