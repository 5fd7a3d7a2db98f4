"""The lists of tests/parallel.py name files that exist, and every run hands out every test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.parallel import LONG, WAITING

ROOT = Path(__file__).parents[1]


def test_listed_files_exist() -> None:
    """A file that was moved would run among the others, and the suite would take longer."""
    assert [file for file in (*WAITING, *LONG) if not (ROOT / file).is_file()] == []
    assert len({*WAITING, *LONG}) == len((*WAITING, *LONG))


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(
        "from tests import parallel\n"
        "def pytest_configure(config):\n"
        "    config.pluginmanager.register(parallel.Parallel(config))\n"
    )
    (folder / "test_some.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('number', range(40))\n"
        "def test_one(number):\n"
        "    assert number != 17\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), "-c", os.devnull]
    return subprocess.run(
        [*command, *options, str(folder / "test_some.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_failure_on_a_worker_is_shown_and_sets_the_exit_code(tmp_path: Path) -> None:
    done = run(tmp_path, "-n", "3")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "test_one[17]" in done.stdout
    assert "1 failed, 39 passed" in done.stdout


def test_without_workers_it_does_the_same(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 39 passed" in done.stdout
