"""What a message may show of names and values that stand in settings.

A password can stand anywhere by mistake: after a colon without a space it is part of a name,
and a URL that holds one is given where a name is expected.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "not shown, it may be a secret"
_NAME: Final = re.compile(r"[A-Za-z0-9_]{1,64}")
_WHOLE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,63}")
# Texts that somebody gives for a number or for true and false.
_PLAIN: Final = re.compile(r"\s*|[+-]?[0-9._:]{1,12}|true|false|yes|no|on|off", re.IGNORECASE)
_URL_OR_LOGIN: Final = re.compile(r"://|:.*@|-----BEGIN|[\n\r]", re.DOTALL)
_PATH_MAX: Final = 1_024
_BITS_MAX: Final = 256


class Secret(str):
    """Text that `repr` hides: where settings or variables are printed, it is not."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{HIDDEN}>"


def name_shown(name: object) -> str:
    """The quoted name, up to the first character that is no letter, digit or `_`."""
    if not isinstance(name, str):
        return value_shown(name)
    found = _NAME.match(name)
    if found is None:
        return f"a name ({HIDDEN})" if name else "''"
    return f"'{found[0]}'" if found[0] == name else f"'{found[0]}...' (the rest is {HIDDEN})"


def label(name: str) -> str:
    """The name of a block or store, for the place of a fault: `kvs.default`.

    A name of letters, digits, `_`, `.` and `-` is shown; of any other only its beginning.
    """
    if _WHOLE_NAME.fullmatch(name):
        return name
    found = _NAME.match(name)
    return f"{found[0] if found else ''}..."


def word_shown(word: object) -> str:
    """The quoted word where it can be a name; a URL or a text with other characters is hidden."""
    if not isinstance(word, str):
        return value_shown(word)
    return repr(word) if _WHOLE_NAME.fullmatch(word) else f"other text ({HIDDEN})"


def value_shown(value: object) -> str:
    """A value that is not what was expected: numbers as they are, of other things the type."""
    if value is None or isinstance(value, bool | float):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() <= _BITS_MAX else "a number of very many digits"
    if isinstance(value, str):
        return repr(value) if _PLAIN.fullmatch(value) else f"other text ({HIDDEN})"
    return f"a {type(value).__name__}"


def holds_login(text: str) -> bool:
    """Whether the text is a URL with a user or a password in it."""
    return "@" in text.partition("://")[2]


def is_path(text: str) -> bool:
    """Whether the text can be shown as a path: no URL, no login, not the content of a file."""
    return len(text) <= _PATH_MAX and _URL_OR_LOGIN.search(text) is None
