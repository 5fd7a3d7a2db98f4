"""Exact encoding: slower, shared by the compiled and the pure codec, for what orjson cannot write.

It copies a value into plain dicts, lists and scalars, converting like the standard library's
`json.dumps`. Values that JSON cannot represent raise NotJSON with their path. The copy uses a list
of containers to visit instead of recursion, so it does not depend on the caller's stack depth.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from math import isfinite, isnan
from typing import Final, NamedTuple, TypeAlias, TypeGuard, TypeVar

import orjson

from lo_kvs.kvs.errors import NotJSON, shorten

#: The values that JSON can represent and that `decode` returns.
Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None

#: The maximum nesting of dicts and lists when encoding. orjson stops at 254.
DEPTH_MAX: Final = 250
#: What `plain_copy` returns for a value that may not be plain.
NOT_PLAIN: Final = object()

#: Longer paths are shortened in the middle.
_STEPS_MAX: Final = 24

_T = TypeVar("_T")

_CONSTANTS: Final = {None: "null", True: "true", False: "false"}

# Two surrogates that form one character: their escapes are decoded as that character.
_SURROGATE_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def write(value: object) -> tuple[bytes, bool]:
    """The JSON text of `value`, and whether `value` was plain: see `encode_state`."""
    walk = _Walk()
    copy = walk.copy(value)
    try:
        return exactly(orjson.dumps(copy)), walk.plain
    except orjson.JSONEncodeError:
        return write_all(copy), walk.plain  # integers over 64 bits and lone surrogates


def write_all(value: Json) -> bytes:
    """The text of a value of plain types, of any depth, including NaN and Infinity.

    It does not recurse: on Python 3.11, `json.dumps` counts the levels of the value together
    with the frames of the caller.
    """
    out: list[str] = []
    todo: list[Iterator[tuple[str, Json]]] = [iter([("", value)])]
    ends: list[str] = [""]
    while todo:
        for before, member in todo[-1]:
            out.append(before)
            if isinstance(member, list):
                members: Iterable[tuple[str, Json]] = zip(_separators(), member)  # noqa: B905
            elif isinstance(member, dict):
                keys = map(_scalar, member)
                marks = (f"{mark}{key}:" for mark, key in zip(_separators(), keys))  # noqa: B905
                members = zip(marks, member.values(), strict=True)
            else:
                out.append(_scalar(member))
                continue
            out.append("[" if isinstance(member, list) else "{")
            ends.append("]" if isinstance(member, list) else "}")
            todo.append(iter(members))
            break
        else:
            todo.pop()
            out.append(ends.pop())
    # UTF-8 has no lone surrogates; `backslashreplace` writes them as JSON escapes.
    return "".join(out).encode("utf-8", "backslashreplace")


def _separators() -> Iterator[str]:
    return itertools.chain([""], itertools.repeat(","))


def _scalar(value: str | float | None) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if value is None or value is True or value is False:
        return _CONSTANTS[value]
    if isinstance(value, float) and not isfinite(value):
        return _not_finite(value)
    return repr(value)


_quoted = json.JSONEncoder(ensure_ascii=False).encode  # does not recurse for strings


def exactly(text: bytes) -> bytes:
    """A copy of `text` without spare memory: orjson allocates 4 KB for 7 bytes and 4 MB for
    109 KB (orjson 3.13.0), which would stay allocated as long as a state is cached.
    """
    return bytes(memoryview(text))


class _Place(NamedTuple):
    """A container to visit, its position, and the copy that receives its members."""

    source: object
    copy: list[Json] | dict[str, Json]
    step: str | int  # its key or index in `parent`
    parent: _Place | None
    depth: int


class _Walk:
    """One walk over a value. `plain` becomes False when something is converted."""

    def __init__(self) -> None:
        self.plain = True
        self._todo: list[_Place] = []

    def copy(self, value: object) -> Json:
        """`value` converted to plain JSON types. Raises NotJSON."""
        members: list[Json] = []
        root = _Place([value], members, "", None, 0)
        self._list(root, members, (value,))
        while self._todo:
            place = self._todo.pop()
            if isinstance(place.copy, dict):
                self._dict(place, place.copy, place.source)
            else:
                self._list(place, place.copy, place.source)
        return members[0]

    def _list(self, place: _Place, copy: list[Json], source: object) -> None:
        # A subclass is read through its own `__iter__`, as json.dumps does.
        if _is(source, list) or _is(source, tuple):
            for index, member in enumerate(_members(place, source)):
                copy.append(self._member(place, index, member))

    def _dict(self, place: _Place, copy: dict[str, Json], source: object) -> None:
        if not _is(source, dict):
            return
        for pair in _items(place, source):
            if not _is(pair, tuple) or len(pair) != 2:
                raise NotJSON(_path(place), f"the items() of {_name(source)} are not pairs")
            key = self._key(place, pair[0])
            if key in copy:
                raise NotJSON(_path(place), f"two keys convert to the same text, {shorten(key)}")
            copy[key] = self._member(place, key, pair[1])

    def _member(self, place: _Place, step: str | int, value: object) -> Json:
        """The copy of one member; a container's copy is empty until it is visited."""
        if value is None or value is True or value is False:
            return value
        if _is(value, str):
            return self._text(value)
        if _is(value, int):
            return self._integer(place, step, value)
        if _is(value, float):
            return self._float(place, step, value)
        copy: list[Json] | dict[str, Json]
        if _is(value, list) or _is(value, tuple):
            self.plain = self.plain and type(value) is list
            copy = []
        elif _is(value, dict):
            self.plain = self.plain and type(value) is dict
            copy = {}
        else:
            raise NotJSON(_path(place, step), f"{_name(value)} is not JSON")
        below = _Place(value, copy, step, place, place.depth + 1)
        if below.depth > DEPTH_MAX:
            raise _too_deep(below)
        self._todo.append(below)
        return copy

    def _text(self, value: str) -> str:
        if type(value) is not str:
            self.plain = False
            value = str.__str__(value)
        if value.isascii() or not _SURROGATE_PAIR.search(value):
            return value
        self.plain = False
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def _integer(self, place: _Place, step: str | int, value: int) -> int:
        if type(value) is not int:
            self.plain = False
            value = int.__int__(value)
        if value.bit_length() > 64:
            _digits(value, _path(place, step))
        return value

    def _float(self, place: _Place, step: str | int, value: float) -> float:
        if type(value) is not float:
            self.plain = False
            value = float.__float__(value)
        if not isfinite(value):
            raise NotJSON(_path(place, step), f"{_not_finite(value)} is not JSON")
        return value

    def _key(self, place: _Place, key: object) -> str:
        if _is(key, str):
            return self._text(key)
        self.plain = False
        if key is None or key is True or key is False:
            return _CONSTANTS[key]
        if _is(key, int):
            return _digits(key, _path(place))
        if _is(key, float):
            number = float.__float__(key)
            if not isfinite(number):
                raise NotJSON(_path(place), f"the key {_not_finite(number)} is not JSON")
            return float.__repr__(number)
        raise NotJSON(_path(place), f"a key of type {_name(key)} is not JSON")


def _is(value: object, kind: type[_T]) -> TypeGuard[_T]:
    """Like isinstance, but by the real type: a mock may claim any `__class__`."""
    return issubclass(type(value), kind)


def _members(place: _Place, source: Iterable[object]) -> list[object]:
    """A snapshot of the members, because other threads may change the value."""
    members = iter(source) if type(source) in (list, tuple) else _iterator(place, source)
    return list(members)


def _items(place: _Place, source: dict[object, object]) -> list[object]:
    # As json.dumps: a subclass is read through its own `items`, unless it is empty.
    if not dict.__len__(source):
        return []
    if type(source) is dict:
        return list(source.items())
    return list(_iterator(place, source.items()))


def _iterator(place: _Place, source: object) -> Iterator[object]:
    try:
        return iter(source)  # type: ignore[call-overload, no-any-return]
    except TypeError as error:
        reason = f"the members of {_name(place.source)} cannot be iterated over"
        raise NotJSON(_path(place), reason) from error


def _digits(value: int, path: str) -> str:
    try:
        return int.__repr__(value)
    except ValueError:
        reason = "the integer is longer than sys.set_int_max_str_digits() allows"
        raise NotJSON(path, reason) from None


def _not_finite(value: float) -> str:
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _name(value: object) -> str:
    kind = type(value)
    builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if builtin else f"{kind.__module__}.{kind.__qualname__}"


def _too_deep(place: _Place) -> NotJSON:
    """The error for a place below DEPTH_MAX; for a cycle, the path of its first repetition."""
    line = []
    at: _Place | None = place
    while at is not None:
        line.append(at)
        at = at.parent
    seen: set[int] = set()
    for at in reversed(line):
        if id(at.source) in seen:
            return NotJSON(_path(at), "the value contains itself, which JSON does not allow")
        seen.add(id(at.source))
    return NotJSON(_path(place), f"nested more than {DEPTH_MAX} deep")


def _path(place: _Place, *last: str | int) -> str:
    """The path of `place`, or of its member `last`: `$.students[3].score`."""
    steps = list(last)
    at = place
    while at.parent is not None:
        steps.insert(0, at.step)
        at = at.parent
    texts = [_step(step) for step in steps[1:]]  # the first leads from the root to the value
    if len(texts) > _STEPS_MAX:
        half = _STEPS_MAX // 2
        texts[half:-half] = ["..."]
    return "$" + "".join(texts)


def _step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if step.isidentifier() else f"[{shorten(step)}]"
