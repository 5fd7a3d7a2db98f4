from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

COMMANDS = ["demo", "ingest", "simulate", "keys", "get", "dump", "load", "copy", "check", "bench"]


def test_commands_are_listed(lo_kvs: Any) -> None:
    answer = lo_kvs("--help")
    assert answer.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in answer.out
    assert "..." not in answer.out.partition("Commands:")[2]  # each fits on its line


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(lo_kvs: Any, command: str) -> None:
    answer = lo_kvs(command, "--help")
    assert answer.code == 0
    assert f"\n    lo-kvs {command}" in answer.out or f"| lo-kvs {command}" in answer.out


def test_help_loads_nothing_slow() -> None:
    program = (
        "import sys; from lo_kvs.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'redis', 'orjson', 'yaml', 'rich', 'asyncio', 'uvloop'} & sys.modules.keys()\n"
        "sys.exit(f'loaded: {slow}' if slow - {'asyncio'} else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_version(lo_kvs: Any) -> None:
    from importlib.metadata import version

    assert lo_kvs("--version").out == version("lo-kvs") + "\n"


def test_simulated_log_is_the_same_each_time(lo_kvs: Any, tmp_path: Any) -> None:
    for name in ("a.gz", "b.gz"):
        answer = lo_kvs("simulate", name, "--students", 2, "--events", 50, "--seed", 8)
        assert answer.code == 0, answer
        assert answer.err == f"wrote 50 events of 2 students to {name}\n"
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert lo_kvs("simulate", "no/such/folder").code == 2
    assert lo_kvs("simulate", "x", "--students", 0).code == 2
