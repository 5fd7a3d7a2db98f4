"""Where the tests of the stores put their files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

IN_MEMORY = Path("/dev/shm")


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is such a thing: for tests that write thousands of files.

    Renaming over an old file, as each write does, waits for a disk even without fsync (0.6 ms
    on ext4), and these tests are not about disks.
    """
    if not os.access(IN_MEMORY, os.W_OK | os.X_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="lokvs-", dir=IN_MEMORY) as name:
        yield Path(name)
