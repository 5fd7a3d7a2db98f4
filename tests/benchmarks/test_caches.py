"""Counting what events cost the processor's caches; valgrind itself is not run here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from benchmarks import caches

COUNTS = """version: 1
creator: callgrind-3.19.0
events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw
summary: 1 1 1 1 1 1 1 1 1

fn=(1) main
16 400

totals: 4000 1200 800 80 40 20 4 9 6
"""


def test_counts_are_reported_per_event(tmp_path: Path) -> None:
    counts = tmp_path / "64-1048576"
    counts.write_text(COUNTS)
    found = caches.per_event(counts, events=2)
    assert found["Ir"] == 2000
    assert found["I1mr"] == 40
    assert (found["DLmr"], found["DLmw"]) == (4.5, 3)


def test_a_run_without_counts_is_reported(tmp_path: Path) -> None:
    counts = tmp_path / "64-1048576"
    counts.write_text(COUNTS.partition("totals")[0])
    with pytest.raises(RuntimeError, match="no counts for 64-1048576"):
        caches.per_event(counts, events=2)


def test_a_miss_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(caches, "FOLLOWED", (1, 32))
    caches.chase(tmp_path)
    words = capsys.readouterr().out.split()
    assert words[:3] == ["a", "step", "among"]
    took = [float(word) for word in words if word.replace(".", "").isdigit() and "." in word]
    assert len(took) == 2
    assert 0 < took[0] < took[1]  # a core's own cache, and one that it shares, or memory


def test_missing_stores_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit) as ended:
        caches.main([])
    assert ended.value.code == 2
    assert "not found: valgrind, callgrind_control, cc." in capsys.readouterr().err


@pytest.mark.parametrize("work", ["0", "-1", "thousand", "1e3"])
def test_unknown_work_is_rejected(work: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        caches.main(["--", work])
    assert ended.value.code == 2
    assert f"no number of sessions, no `batches` or `ceiling`: {work}" in capsys.readouterr().err


@pytest.mark.parametrize("work", caches.WORKS)
def test_each_work_runs(
    work: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As within valgrind, where the counting is switched on and off as well."""
    switched: list[str] = []
    monkeypatch.setattr(caches, "_count", switched.append)
    monkeypatch.setattr(caches, "SECONDS", 0.1)
    asyncio.run(caches.run_work(work))
    assert switched == ["on", "off"]
    assert int(capsys.readouterr().out) >= (int(work) if work.isdigit() else 40_000)
