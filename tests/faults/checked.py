"""What startup and `lo-kvs check` say of a server."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lo_kvs import settings
from lo_kvs.kvs import KVS, kvs_startup_check

PROGRAM = "from lo_kvs.cli import app; app()"
WAIT_MAX_S = 60


class Checked(NamedTuple):
    """How `lo-kvs check` ended, and its findings, each as (severity, check, text)."""

    code: int
    findings: list[tuple[str, str, str]]

    def of(self, severity: str) -> dict[str, str]:
        """The texts of one severity, by what was checked."""
        return {check: text for found, check, text in self.findings if found == severity}


def checked(folder: Path, connection: dict[str, Any], **stores: dict[str, Any]) -> Checked:
    """Run the command, as a program of its own, with these stores."""
    kvs = {"default": {"type": "stub"}, **stores}
    content = {"kvs": kvs, "redis_connection": connection}
    (folder / "creds.yaml").write_text(json.dumps(content))  # JSON is YAML
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "check", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=WAIT_MAX_S,
        check=False,
    )
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["exit_code"] == done.returncode
    return Checked(
        done.returncode,
        [
            (found["severity"], found["check"], f"{found['what']}; {found['way_out']}")
            for server in report["servers"]
            for found in server["findings"]
        ],
    )


async def warnings_of_a_start(
    caplog: pytest.LogCaptureFixture, connection: dict[str, Any], **stores: dict[str, Any]
) -> list[str]:
    """What startup logs of the servers of these stores. Raises what it raises."""
    before = dict(settings.settings)
    settings.settings.clear()
    kvs = {"default": {"type": "stub"}, **stores}
    settings.settings.update({"kvs": kvs, "redis_connection": connection})
    caplog.clear()
    try:
        kvs_startup_check()
    finally:
        await KVS.aclose()
        settings.settings.clear()
        settings.settings.update(before)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
