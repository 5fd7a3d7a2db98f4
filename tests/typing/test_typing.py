"""mypy and pyright on cases.py: what is right passes, what is wrong is reported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("cases.py")
PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "command",
    [
        ["mypy", "--strict", "--config-file", "pyproject.toml"],
        ["pyright", "--warnings", "--pythonpath", sys.executable],
    ],
    ids=lambda command: command[0],
)
def test_type_checker(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command, str(CASES)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
