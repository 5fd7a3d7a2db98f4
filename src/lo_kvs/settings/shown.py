"""Formats names and values of settings for messages, without revealing secrets.

A password can be in the wrong place: after a colon without a space it is part of a name, and a
URL with a password may be given instead of a name.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "not shown, it may be a secret"
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_WHOLE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,63}")
# Text given instead of a number or a boolean.
_PLAIN: Final = re.compile(r"\s*|[+-]?[0-9._:]{1,12}|true|false|yes|no|on|off", re.IGNORECASE)
_URL_OR_LOGIN: Final = re.compile(r"://|:.*@|-----BEGIN|[\n\r]", re.DOTALL)
_PATH_MAX: Final = 1_024
_BITS_MAX: Final = 256


class Secret(str):
    """Text whose `repr` is hidden, so that printed settings or variables do not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{HIDDEN}>"


def name_shown(name: object) -> str:
    """The quoted name, up to the first character that is not a letter, digit or `_`."""
    if not isinstance(name, str):
        return value_shown(name)
    found = _NAME.match(name)
    if found is None:
        return f"a name ({HIDDEN})" if name else "''"
    return f"'{found[0]}'" if found[0] == name else f"'{found[0]}...' (the rest is {HIDDEN})"


def label(name: str) -> str:
    """The name of a block or store, for the place of an error: `kvs.default`.

    A name of letters, digits, `_`, `.` and `-` is shown; of other names only the start.
    """
    if _WHOLE_NAME.fullmatch(name):
        return name
    found = _NAME.match(name)
    return f"{found[0] if found else ''}..."


def word_shown(word: object) -> str:
    """The quoted word if it looks like a name; a URL or other text is hidden."""
    if not isinstance(word, str):
        return value_shown(word)
    return repr(word) if _WHOLE_NAME.fullmatch(word) else f"other text ({HIDDEN})"


def value_shown(value: object) -> str:
    """An unexpected value: numbers are shown, of other values the type."""
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() <= _BITS_MAX else "a number with too many digits"
    if isinstance(value, str):
        return repr(value) if _PLAIN.fullmatch(value) else f"other text ({HIDDEN})"
    return f"a {type(value).__name__}"


def holds_login(text: str) -> bool:
    """Whether the text is a URL with a user or a password in it."""
    return "@" in text.partition("://")[2]


def is_path(text: str) -> bool:
    """Whether the text can be shown as a path: not a URL, login or file content."""
    return len(text) <= _PATH_MAX and _URL_OR_LOGIN.search(text) is None
