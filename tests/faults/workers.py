"""Worker processes: started together, released together, and never left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
#: Seconds after which a worker is stuck, on a machine that is busy with other things.
WAIT_MAX_S = 120.0


class Worker:
    """A process of `tests.faults.worker`."""

    def __init__(self, mode: str, url: str, **options: object) -> None:
        words = [f"{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.worker", mode, url, *words],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def go(self) -> None:
        self._say(b"go\n")

    def stop(self) -> None:
        self._say(b"stop\n")

    def report(self) -> dict[str, Any]:
        """What it says in the end."""
        out, _ = self.process.communicate(timeout=WAIT_MAX_S)
        assert self.process.returncode == 0
        answer: dict[str, Any] = json.loads(out)
        return answer

    def kill(self) -> bytes:
        """End it at once (SIGKILL), and return what it had said and nobody had read."""
        self.process.kill()
        out, _ = self.process.communicate()
        return out

    def _say(self, word: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word)
        self.process.stdin.flush()


@contextmanager
def released(workers: Sequence[Worker]) -> Iterator[Sequence[Worker]]:
    """The workers at work, all since the same moment; what still runs in the end is killed."""
    try:
        for worker in workers:
            worker.wait_until_ready()
        for worker in workers:
            worker.go()
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def totals(reports: Sequence[dict[str, Any]]) -> tuple[Counter[str], Counter[str]]:
    """What was acknowledged, by key, and every error, by its text."""
    acknowledged: Counter[str] = Counter()
    errors: Counter[str] = Counter()
    for report in reports:
        acknowledged.update(report["acknowledged"])
        errors.update(report["errors"])
    return acknowledged, errors


def tell(what: str) -> None:
    """Say what a run came to. pytest shows it where a test fails, or always with -rP."""
    sys.stdout.write(what + "\n")
