"""Remove secrets from the texts of servers and libraries that become part of an error.

A server quotes commands that it does not know, including passwords: Redis before version 6
answers `HELLO 3 AUTH default secret` with "unknown command 'HELLO', with args beginning with:
'3' 'AUTH' 'default' 'secret'". Connections clean such a text before an exception is created from
it, so no error, no `__cause__` and no log can show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

#: The user that every server has. Its name is not a secret.
DEFAULT_USER: Final = "default"
#: A shorter secret is replaced only as a whole word; otherwise single letters would be replaced.
ALONE_BELOW: Final = 4
#: The arguments of a command that a server quotes: keys, values and passwords.
_QUOTED: Final = re.compile(r",? with args\b.*", re.DOTALL)


class Secrets:
    """The passwords and user names of a connection.

    A password is replaced everywhere, also percent-encoded as in a URL. A user name is replaced
    only as a whole word.
    """

    def __init__(self, passwords: Iterable[str | None], users: Iterable[str | None] = ()) -> None:
        forms = {
            form
            for password in passwords
            if password
            for form in (password, quote(password, safe=""), quote(password), quote_plus(password))
        }
        names = {name for name in users if name and name != DEFAULT_USER}
        # The longest first, because one secret may be part of another.
        self._patterns = [
            (_pattern(form, alone=len(form) < ALONE_BELOW), "<password>")
            for form in sorted(forms, key=len, reverse=True)
        ] + [
            (_pattern(name, alone=True), "<username>")
            for name in sorted(names, key=len, reverse=True)
        ]

    def __repr__(self) -> str:
        return "Secrets()"

    def clean(self, text: str) -> str:
        """`text` without the secrets, and without quoted arguments of commands."""
        text = _QUOTED.sub("", text)
        for pattern, instead in self._patterns:
            text = pattern.sub(instead, text)
        return text


def _pattern(secret: str, *, alone: bool) -> re.Pattern[str]:
    text = re.escape(secret)
    return re.compile(rf"(?<!\w){text}(?!\w)" if alone else text)
