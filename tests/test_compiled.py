"""What is compiled is of the sources that stand beside it."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import lo_kvs

PACKAGE = Path(str(lo_kvs.__file__)).parent


def test_no_module_is_older_than_its_source() -> None:
    """Else the tests would try what was: Python takes the compiled module where there is one."""
    built = [path for path in PACKAGE.rglob("*") if path.name.endswith(EXTENSION_SUFFIXES[0])]
    stale = [
        str(source.relative_to(PACKAGE))
        for path in built
        for suffix in (".py", ".pyx", ".pxd")
        if (
            source := path.with_name(path.name.removesuffix(EXTENSION_SUFFIXES[0]) + suffix)
        ).exists()
        and source.stat().st_mtime > path.stat().st_mtime
    ]
    assert not stale, f"`make test` builds them anew: {', '.join(stale)}"
