"""Starting the programs of existing callers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 60


def run_program(program: Path, *arguments: str, path: Path | None = None) -> Any:
    """What the program prints, as JSON. `path` is searched for packages first.

    A warning is an error, as in the tests themselves.
    """
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def creds(folder: Path, redis_url: str, default: dict[str, Any]) -> Path:
    """A creds.yaml with this default store, caches beside it, and the Redis of the test."""
    path = folder / "creds.yaml"
    address = urlsplit(redis_url)
    settings = {
        "hostname": "localhost",
        "redis_connection": {
            "redis_host": address.hostname,
            "redis_port": address.port,
            "redis_password": None,
        },
        "kvs": {
            "default": default,
            "memoization": {"type": "stub"},
            "google_cache": {"type": "filesystem", "path": str(folder / "google")},
        },
    }
    path.write_text(json.dumps(settings))  # YAML reads JSON
    return path
