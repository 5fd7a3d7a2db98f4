"""Builds the package and runs its tests on every supported Python that this machine has.

An interpreter is found by the name python3.N on PATH, in pyenv's folder, through uv, or in
LOKVS_PYTHONS (paths, separated by spaces), which goes first. Each one gets an environment of its
own in .venv-pythons, and a package that is compiled there. What is missing is listed.

    python -m tests.matrix.pythons         all of them
    python -m tests.matrix.pythons 12 13   only Python 3.12 and 3.13
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.matrix.table import PROJECT, Row, exit_code, run_tests, show

MINORS = range(11, 15)
# The contract of every store, and the tests of everything that is compiled.
TESTS = (
    "tests/kvs/test_contract.py",
    "tests/kvs/codec",
    "tests/kvs/redis/test_lua.py",
    "tests/kvs/redis/test_packing.py",
    "tests/stream_analytics",
)
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "build", "dist", "*.egg-info", "__pycache__", "*.so", "*.c"
)
_ASK = "import sys; print('.'.join(map(str, sys.version_info[:3])), sys.implementation.name)"


def candidates(minor: int) -> Iterator[Path]:
    """Where Python 3.`minor` may be."""
    for named in os.environ.get("LOKVS_PYTHONS", "").split():
        yield Path(named)
    name = f"python3.{minor}"
    yield from (Path(folder, name) for folder in os.get_exec_path())
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv", "versions")
    yield from sorted(pyenv.glob(f"3.{minor}.*/bin/python"), key=_by_number, reverse=True)
    uv = shutil.which("uv")
    if uv is not None:
        find = [uv, "python", "find", "--offline", "--system", f"3.{minor}"]
        done = subprocess.run(find, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield Path(done.stdout.strip())


def _by_number(path: Path) -> list[int]:
    version = path.parts[-3]
    return [int(part) for part in version.split(".") if part.isdecimal()]


def version_of(python: Path) -> str | None:
    """The version of a CPython that runs, or None. Some names on PATH are there and do not run."""
    if not os.access(python, os.X_OK):
        return None
    try:
        done = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version, _, kind = done.stdout.strip().partition(" ")
    return version if done.returncode == 0 and kind == "cpython" else None


def find(minor: int) -> tuple[Path, str] | None:
    """An interpreter of Python 3.`minor` and its full version."""
    for python in candidates(minor):
        version = version_of(python)
        if version is not None and version.startswith(f"3.{minor}."):
            return python, version
    return None


def build(python: Path, environment: Path, sources: Path) -> Path:
    """A fresh environment with the package, compiled from `sources`, and all that tests need."""
    shutil.rmtree(environment, ignore_errors=True)
    # Debian's Python lacks ensurepip, so it is the pip of this environment that installs.
    subprocess.run([python, "-m", "venv", "--without-pip", environment], check=True)
    inside = environment / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", inside, "install", "--quiet"]
    required = os.environ | {"LOKVS_REQUIRE_EXTENSION": "1"}
    subprocess.run([*pip, f"{sources}[test]"], env=required, check=True)
    return inside


def test(minor: int) -> Row:
    """Build and test with Python 3.`minor`."""
    name = f"3.{minor}"
    found = find(minor)
    if found is None:
        return Row(name, "-", "missing; see docs/development.md", ok=None)
    python, version = found
    print(f"\n== Python {version}: {python}", flush=True)
    with tempfile.TemporaryDirectory(prefix="lokvs-pythons-") as scratch:
        sources = Path(scratch, "sources")
        shutil.copytree(PROJECT, sources, ignore=NOT_SOURCE)
        try:
            inside = build(python, PROJECT / ".venv-pythons" / name, sources)
        except subprocess.CalledProcessError as error:
            return Row(name, version, f"the build failed: {error}", ok=False)
        shutil.rmtree(sources / "src")  # what is tested is what was installed
        row = run_tests(inside, TESTS, sources, os.environ)
    return row._replace(name=name, version=version)


def main(wanted: Sequence[str]) -> int:
    """Test on every Python, or on the wanted ones; print the table, return the exit code."""
    rows = [test(minor) for minor in MINORS if not wanted or str(minor) in wanted]
    show(("Python", "version", "contract, codec, compiled modules"), rows)
    return exit_code(rows, "Python 3.11 or later")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
