"""Expands `~` and environment variables in the paths of the settings."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+)|)", re.ASCII)


def expand_path(path: str | os.PathLike[str]) -> Path:
    """The path with a leading `~` or `~user`, and each `$NAME` or `${NAME}`, replaced.

    Raises `ValueError` if a variable is unset or empty, if a `$` has another form (`${A:-b}`),
    or if the home directory is unknown. The message has the problem and the fix, but no values
    of variables.
    """
    text = _VARIABLE.sub(_value, os.fspath(path))
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise ValueError(f"the home directory {user!r} is unknown; use a full path") from None


def _value(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    if not name:
        raise ValueError("`$` must be followed by the name of an environment variable")
    value = os.environ.get(name, "")
    if not value:
        raise ValueError(f"the environment variable {name} is not set; set it, or use a full path")
    if "$" in value:
        raise ValueError(f"the environment variable {name} contains `$`; set it to a plain path")
    return value
