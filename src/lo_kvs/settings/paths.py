"""Paths in the settings: `~` and environment variables are expanded, never taken as names."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+)|)", re.ASCII)


def expand_path(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` or `~user`, and each `$NAME` or `${NAME}`, replaced.

    Raises `ValueError` when a variable is not set or is empty, when a `$` has another form
    (`${A:-b}`), and when the home folder is unknown. The text says what is wrong and how to
    fix it, without the values of variables.
    """
    text = _VARIABLE.sub(_value, os.fspath(path))
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise ValueError(f"the home folder {user!r} is unknown; write out the path") from None


def _value(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    if not name:
        raise ValueError("`$` must be followed by the name of an environment variable")
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"the environment variable {name} is not set; set it, or write the path")
    if "$" in value:
        raise ValueError(f"the environment variable {name} contains `$`; set it to a plain path")
    return value
