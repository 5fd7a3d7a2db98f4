"""What `make bench` and `lo-kvs bench` share: targets, latencies, turns, plots, sessions."""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from benchmarks import __main__ as program

from lo_kvs.kvs import InMemoryKVS
from lo_kvs.measure import machine, plots
from lo_kvs.measure.report import Chart, Target, compare, unmet
from lo_kvs.measure.timing import Contestant, Miscount, Run, drive, interleaved, timed
from lo_kvs.measure.workload import (
    Session,
    check_states,
    in_sessions,
    planned,
    states_without_store,
)
from lo_kvs.simulate import simulate
from lo_kvs.stream_analytics.pipeline import Pipeline

SHIPPED = "lo_kvs.reducers"


@pytest.fixture
def own_cores() -> Iterator[None]:
    """The program keeps to two cores; the tests after it get theirs back."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    yield
    if before is not None:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("bound", "value", "met"),
    [
        ("at least", 2.0, True),
        ("at least", 1.9, False),
        ("at most", 2.0, True),
        ("at most", 2.1, False),
    ],
)
def test_target(bound: Any, value: float, met: bool) -> None:
    assert Target(bound, 2.0).met(value) is met


def test_latencies_are_those_that_a_share_of_the_events_kept_below() -> None:
    run = timed([number / 1e6 for number in range(1000)], seconds=2.0)
    assert run.events == 1000
    assert run.events_s == 500
    assert run.latency_us(0.5) == pytest.approx(500)
    assert run.latency_us(0.99) == pytest.approx(990)


def test_ratio_is_taken_round_by_round() -> None:
    runs = {"a": [Run(10, 1.0), Run(40, 1.0), Run(30, 1.0)], "b": [Run(10, 1.0)] * 3}
    line = compare("P0", "work", runs, "a", "b", target=Target("at least", 3.5))
    assert line.ratio == (3.0, 1.0, 4.0)
    assert line.met is False
    assert unmet([line]) == [line]
    assert json.loads(json.dumps(line.as_json()))["ratio"]["greatest"] == 4.0


def test_contestants_take_turns_and_the_first_round_is_discarded() -> None:
    turns: list[str] = []
    checked: dict[str, int] = {}

    def contestant(name: str) -> Contestant:
        async def run() -> Run:
            turns.append(name)
            return Run(len(turns), 1.0)

        async def check(sent: int) -> None:
            checked[name] = sent

        return Contestant(name, run, check)

    runs = asyncio.run(interleaved([contestant("a"), contestant("b")], rounds=2))
    assert turns == ["a", "b"] * 3
    assert [run.events for run in runs["b"]] == [4, 6]
    assert checked == {"a": 1 + 3 + 5, "b": 2 + 4 + 6}


def test_error_in_a_session_ends_the_run() -> None:
    async def fails() -> None:
        raise Miscount("here")

    with pytest.raises(Miscount, match="here"):
        asyncio.run(drive([fails] * 3, 10.0))


def test_every_session_gets_at_least_one_event_through() -> None:
    done: list[int] = []

    def step(number: int) -> Callable[[], Awaitable[None]]:
        async def one() -> None:
            done.append(number)

        return one

    run = asyncio.run(drive([step(number) for number in range(50)], 0.0))
    assert sorted(done) == list(range(50))
    assert run.events == 50


def test_sessions_share_out_students_in_their_order() -> None:
    events = list(simulate(7, 200))
    sessions = in_sessions(events, 3)
    assert sum(map(len, sessions)) == 200
    students = [{e["metadata"]["auth"]["safe_user_id"] for e in own} for own in sessions]
    assert not students[0] & students[1]
    assert not students[1] & students[2]
    for own in sessions:
        times: dict[str, float] = {}
        for event in own:
            student = event["metadata"]["auth"]["safe_user_id"]
            assert event["server"]["time"] >= times.get(student, 0)
            times[student] = event["server"]["time"]


def test_session_plays_its_log_again_as_another_student() -> None:
    session = Session("bench-1", list(simulate(1, 3)))
    taken = [session.next_event() for _ in range(7)]
    assert list(session.again()) == taken
    names = [event["metadata"]["auth"]["safe_user_id"] for event in taken]
    assert names == ["bench-1-0"] * 3 + ["bench-1-1"] * 3 + ["bench-1-2"]


def test_states_equal_those_of_a_store() -> None:
    async def scenario() -> None:
        pipeline = Pipeline.of_module(SHIPPED)
        events = list(simulate(3, 200))
        expected = await states_without_store(planned(pipeline, events))
        async with InMemoryKVS() as store:
            for event in events:
                await pipeline.process(event, store=store)
            await check_states(store, expected)
            await pipeline.process(events[-1], store=store)
            with pytest.raises(Miscount):
                await check_states(store, expected)

    asyncio.run(scenario())


def test_plots_are_svg_and_the_same_each_time(tmp_path: Path) -> None:
    curves = {"ours": [(1.0, 7600.0), (64.0, 121000.0)], "loop": [(1.0, 3300.0), (64.0, 6000.0)]}
    chart = Chart("throughput", "Throughput", "sessions", "events/s", curves)
    (path,) = plots.write_each([chart], tmp_path / "plots")
    assert path.name == "throughput.svg"
    first = path.read_bytes()
    assert ET.fromstring(first).tag.endswith("svg")
    assert b"sessions" in first
    plots.write([chart], path)
    assert path.read_bytes() == first


def test_plots_without_matplotlib_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(plots.NoPlots, match="pip install"):
        plots.check_there()


def test_machine_is_described() -> None:
    found = machine.machine()
    assert found["cores"] >= found["cores_used"] >= 1
    assert machine.versions()["redis"]


@pytest.mark.usefixtures("own_cores")
def test_program_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "figures.json"
    arguments = ["--quick", "--only", "p1,P7", "--json", str(file), "--plots", str(tmp_path)]
    assert program.main(arguments) == 0
    found = json.loads(file.read_text())
    assert {line["row"] for line in found["lines"]} == {"P1", "P7"}
    assert found["server"]["redis_version"]
    assert found["machine"]["cores_used"] <= 2
    assert all(math.isfinite(line["figure"]["median"]) for line in found["lines"])
    assert (tmp_path / "latency-1-session.svg").exists()
    assert "bare EVALSHA" in capsys.readouterr().out


@pytest.mark.usefixtures("own_cores")
def test_program_fails_if_a_row_miscounts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def miscounts(_setting: object) -> Any:
        raise Miscount("10 were acknowledged, 9 are counted")

    monkeypatch.setitem(program.ROWS, "P1", miscounts)
    assert program.main(["--quick", "--only", "P1"]) == 1
    assert "P1 FAILED: 10 were acknowledged, 9 are counted" in capsys.readouterr().out


def test_program_knows_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["--only", "P9"])
    assert "no such row: P9" in capsys.readouterr().err
