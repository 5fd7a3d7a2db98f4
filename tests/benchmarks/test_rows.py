"""Every row runs, and notices when events are lost or applied twice."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from benchmarks.__main__ import ROWS
from benchmarks.baselines import Compared, ReadSetSet, Watched
from benchmarks.setting import Setting, counted
from benchmarks.work import counting, event_of, flat_state, keys_of, plain

from lo_kvs.kvs import codec
from lo_kvs.measure.report import Line
from lo_kvs.measure.timing import Miscount, drive

WITH_A_STORE = [name for name in ROWS if name != "P7"]
TARGETS = {"P1": 1, "P2": 3, "P3": 1, "P4": 2, "P5": 2, "P6": 7, "P7": 3, "P8": 2}
ON_A_CLUSTER = ["C2", "C3", "C5"]  # they have no targets


def sound(line: Line) -> bool:
    values = [line.figure, line.against, line.ratio]
    return all(math.isfinite(m.median) and m.median >= 0 for m in values if m is not None)


@pytest.mark.parametrize("name", ROWS)
def test_row(run_row: Any, name: str) -> None:
    result = run_row(ROWS[name])
    assert all(line.row == name and sound(line) for line in result.lines)
    assert sum(line.target is not None for line in result.lines) == TARGETS.get(name, 0)
    assert result.sizes


@pytest.mark.parametrize("store", ["LosingStore", "DoublingStore"])
@pytest.mark.parametrize("name", WITH_A_STORE)
def test_row_fails_when_events_are_lost_or_doubled(
    run_row: Any, name: str, store: str, stores: dict[str, Any]
) -> None:
    where = "on a cluster" if name in ON_A_CLUSTER else None
    with pytest.raises(Miscount, match=where):
        run_row(ROWS[name], store_type=stores[store], rounds=1)


def test_codec_row_fails_when_a_value_is_changed(
    run_row: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "encode", lambda _: b"{}")
    with pytest.raises(Miscount):
        run_row(ROWS["P7"])


def test_loop_loses_what_the_safe_baselines_keep() -> None:
    reducer = counting(flat_state(300))
    keys = keys_of(reducer, "s1")

    async def kept_by(way: Any) -> tuple[int, int]:
        async with Setting.opened(quick=True) as setting:
            baseline = way(setting.client, plain(reducer), flat_state(300))
            steps = [lambda: baseline.process(keys, event_of("s1"))] * 8
            run = await drive(steps, 0.05)
            return run.events, await counted(setting.client, [keys.internal])

    sent, kept = asyncio.run(kept_by(ReadSetSet))
    assert 0 < kept < sent
    for way in (Watched, Compared):
        sent, kept = asyncio.run(kept_by(way))
        assert kept == sent > 0
