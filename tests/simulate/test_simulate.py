"""The simulated class: the same everywhere, and like a class.

    python tests/simulate/test_simulate.py

writes the logs in `tests/data` anew, after the generator was changed.
"""

from __future__ import annotations

import gzip
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lo_kvs.simulate import START_S, SimulatedClass, simulate, write_study_log

DATA = Path(__file__).parents[1] / "data"
LOGS: dict[str, dict[str, int]] = {
    "pair.study.log": {"students": 2, "events": 12, "seed": 1, "documents": 1},
    "class.study.log.gz": {"students": 5, "events": 400, "seed": 2, "length": 300},
}


def read(path: Path) -> bytes:
    stored = path.read_bytes()
    return gzip.decompress(stored) if path.suffix == ".gz" else stored


def commands_in(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for event in events:
        for bundle in event["client"].get("bundles", []):
            yield from bundle["commands"]


@pytest.mark.parametrize("name", LOGS)
def test_shipped_log_is_what_its_seed_gives(name: str, tmp_path: Path) -> None:
    """Compared unpacked: another version of zlib may pack the same bytes otherwise."""
    count = write_study_log(tmp_path / name, simulate(**LOGS[name]))
    assert count == LOGS[name]["events"]
    assert read(tmp_path / name) == read(DATA / name)
    assert (DATA / name).stat().st_size < 12_000


@pytest.mark.parametrize("name", ["a.study.log", "a.study.log.gz"])
def test_log_depends_on_its_events_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study_log(tmp_path / name, simulate(3, 50))
    monkeypatch.setattr(time, "time", lambda: 1.0)
    other = tmp_path / f"another-{name}"
    write_study_log(other, simulate(3, 50))
    assert other.read_bytes() == (tmp_path / name).read_bytes()


def test_line_of_a_log(tmp_path: Path) -> None:
    events = list(simulate(2, 40))
    write_study_log(tmp_path / "a.study.log", events)
    lines = (tmp_path / "a.study.log").read_text("ascii").splitlines()
    assert len(lines) == 40
    for line, event in zip(lines, events, strict=True):
        text, received = line.split("\t")
        assert json.loads(text) == event
        moment = datetime.fromisoformat(received).replace(tzinfo=UTC)
        assert moment.timestamp() == event["server"]["time"]


def test_empty_log(tmp_path: Path) -> None:
    assert write_study_log(tmp_path / "a.study.log.gz", []) == 0
    assert read(tmp_path / "a.study.log.gz") == b""


def test_seed_decides() -> None:
    first = list(simulate(4, 300, seed=5))
    assert list(simulate(4, 300, seed=5)) == first
    assert list(simulate(4, 300, seed=6)) != first
    simulated = SimulatedClass(4, 300, seed=5)
    assert list(simulated.events()) == list(simulated.events()) == first


def test_more_events_start_with_the_same() -> None:
    assert list(simulate(4, 500, seed=5))[:300] == list(simulate(4, 300, seed=5))


def test_two_runs_of_a_class_do_not_disturb_each_other() -> None:
    simulated = SimulatedClass(4, 300)
    pairs = list(zip(simulated.events(), simulated.events(), strict=True))
    assert all(one == other for one, other in pairs)


def test_nothing_but_the_seed_is_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `Random.random` gives the same numbers on every version of Python."""
    expected = list(simulate(3, 500, documents=3, length=200))

    def forbidden(*_: object) -> None:
        raise AssertionError("not stable between versions of Python")

    for name in ("getrandbits", "randrange", "choice", "choices", "shuffle", "gauss"):
        monkeypatch.setattr(random.Random, name, forbidden)
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, forbidden)
    assert list(simulate(3, 500, documents=3, length=200)) == expected


@pytest.mark.parametrize("events", [0, 1, 7, 1000])
def test_number_of_events(events: int) -> None:
    assert len(list(simulate(5, events))) == events


def test_class_is_interleaved_and_its_clock_runs_forward() -> None:
    events = list(simulate(10, 3000))
    times = [event["server"]["time"] for event in events]
    assert times == sorted(times)
    assert START_S <= times[0] < START_S + 60
    students = [event["metadata"]["auth"]["safe_user_id"] for event in events]
    assert min(Counter(students).values()) > 50
    assert sum(one != other for one, other in pairwise(students)) > 1500


def test_start_moves_every_time() -> None:
    for event, later in zip(simulate(2, 50), simulate(2, 50, start=START_S + 1000), strict=True):
        assert later["server"]["time"] == pytest.approx(event["server"]["time"] + 1000, abs=1e-6)


def test_students_identify_themselves_first() -> None:
    seen: dict[str, list[str]] = {}
    for event in simulate(6, 800, seed=3):
        auth = event["metadata"]["auth"]
        assert event["client"]["auth"] == auth
        assert event["client"]["source"] == event["metadata"]["source"]
        assert event["metadata"]["source"] == "org.mitros.writing_analytics"
        seen.setdefault(auth["safe_user_id"], []).append(event["client"]["event"])
    assert len(seen) == 6
    for kinds in seen.values():
        assert kinds[:2] == ["test_framework_fake_identity", "metadata_finished"]
        assert set(kinds[2:]) == {"google_docs_save"}


def test_events_share_no_objects() -> None:
    expected = list(simulate(3, 400, seed=8))
    spoiled = []
    for event in simulate(3, 400, seed=8):
        spoiled.append(json.loads(json.dumps(event)))
        for part in event.values():
            part.get("auth", {}).clear()
            part.get("bundles", []).clear()
            part.clear()
    assert spoiled == expected


def test_class_does_all_that_students_do() -> None:
    kinds = Counter(command["ty"] for command in commands_in(simulate(10, 5000)))
    assert kinds["is"] > kinds["ds"] > kinds["mlti"] > 0 < kinds["as"]
    typed = [c["s"] for c in commands_in(simulate(10, 5000)) if c["ty"] == "is"]
    assert {1, 2, 5} < {len(text) for text in typed}
    assert any(char > "\uffff" for text in typed for char in text)
    inserted = [c for c in commands_in(simulate(1, 3000, documents=1)) if c["ty"] == "is"]
    assert sum(one["ibi"] > other["ibi"] for one, other in pairwise(inserted))
    moments = [event["server"]["time"] for event in simulate(1, 5000)]
    gaps = [later - one for one, later in pairwise(moments)]
    assert max(gaps) > 120
    assert sorted(gaps)[len(gaps) // 2] < 1
    assert len(SimulatedClass(1, 3000).texts) == 0
    assert {e["client"].get("doc_id") for e in simulate(1, 3000)} > {"sim-doc-000-1"}


def test_texts_stay_around_their_length() -> None:
    simulated = SimulatedClass(2, 20_000, documents=2, length=200)
    longest = 0
    for number, _ in enumerate(simulated.events()):
        if number % 50 == 0:
            longest = max(longest, *map(len, simulated.texts.values()), 0)
    assert 150 < longest < 220
    assert len(simulated.texts) == 4


@pytest.mark.parametrize(
    "wrong", [{"students": 0}, {"events": -1}, {"documents": 0}, {"length": 99}]
)
def test_invalid_class(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least"):
        SimulatedClass(**wrong)


def main() -> None:
    for name, options in LOGS.items():
        count = write_study_log(DATA / name, simulate(**options))
        sys.stdout.write(f"{name}: {count} events, {(DATA / name).stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
