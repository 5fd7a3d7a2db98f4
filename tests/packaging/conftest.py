"""Both distributions, built once for all tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.packaging.environments import PROJECT, environment, run


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what `make build` makes: each wheel was built from the sdist beside it."""
    folder = tmp_path_factory.mktemp("distributions")
    release: list[str | Path] = [
        sys.executable,
        PROJECT / "tools/release.py",
        folder,
        "--no-isolation",
    ]
    run(*release, cwd=folder, env=environment(LOKVS_REQUIRE_EXTENSION="1"))
    return folder
