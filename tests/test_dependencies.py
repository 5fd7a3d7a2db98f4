"""Packages that are missing or too old: a settings fault that says what to install."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lo_kvs.dependencies import LEAST, _numbers, check_packages

ROOT = Path(__file__).parent.parent


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program with the packages in `folder` before the installed ones."""
    begin = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run(
        [sys.executable, "-c", begin + program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


CATCH = """
from lo_kvs.prestartup import StartupCheck
try:
    import {module}
except StartupCheck as fault:
    print(fault)
"""


@pytest.mark.parametrize(
    "module", ["kvs", "redis_connection", "stream_analytics.helpers", "reducers"]
)
def test_old_and_missing_packages(tmp_path: Path, module: str) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "redis" / "__init__.py").write_text("__version__ = '5.0.1'\n")
    (tmp_path / "hiredis.py").write_text("raise ImportError('No module named hiredis')\n")
    done = run(CATCH.format(module=f"lo_kvs.{module}"), tmp_path)
    assert done.stdout.splitlines() == [
        "redis 5.0.1 is too old: 8.1 or later is needed; run pip install 'redis>=8.1'",
        (
            "hiredis cannot be imported (No module named hiredis): 3.2 or later is needed; run "
            "pip install 'hiredis>=3.2'"
        ),
    ], done.stderr


def test_command_line(tmp_path: Path) -> None:
    (tmp_path / "orjson.py").write_text("__version__ = '3.9.15'\n")
    done = run("from lo_kvs.cli import app; app(['check'])", tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "lo-kvs: orjson 3.9.15 is too old: 3.10 or later is needed; run "
        "pip install 'orjson>=3.10'\n"
    )


def test_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(line.split(">=") for line in project["dependencies"])
    assert {package: wanted[package] for package, _ in LEAST.values()} == dict(LEAST.values())
    check_packages()


def test_versions_are_compared_by_their_numbers() -> None:
    assert _numbers("3.10") > _numbers("3.9.15")
    assert _numbers("8.1.0b1") >= _numbers("8.1")
