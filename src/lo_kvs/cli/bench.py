"""`lo-kvs bench`: measures the user's reducers and logs on the configured stores."""

from __future__ import annotations

import contextlib
import functools
import shutil
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lo_kvs.cli.bench_output import draw, show, write_json
from lo_kvs.cli.common import (
    DONE,
    PROBLEMS,
    USAGE,
    Config,
    Failure,
    Overlays,
    Settings,
    counted,
    opened,
    run,
    say,
)

if TYPE_CHECKING:
    from lo_kvs.kvs import Store
    from lo_kvs.measure.deployment import InputBytes


def bench(  # noqa: PLR0917 - a parameter for each option
    reducers: Annotated[
        str,
        typer.Option(
            "--reducers",
            "-r",
            metavar="MODULE",
            help="Python module with REDUCERS, importable from the current directory.",
        ),
    ] = "lo_kvs.reducers",
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", show_default=False, help="No FILE: a simulated class."),
    ] = None,
    config: Config = None,
    overlay: Overlays = None,
    store: Annotated[
        list[str] | None,
        typer.Option(
            "--store",
            "-s",
            metavar="NAME",
            show_default=False,
            help="Name of a store to measure; repeatable.  [default: all]",
        ),
    ] = None,
    sessions: Annotated[
        str, typer.Option(metavar="N,N,...", help="Numbers of concurrent sessions.")
    ] = "1,64,1000",
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Seconds per round and measurement.")
    ] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds per measurement.")] = 3,
    as_json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw throughput and latency (SVG); needs matplotlib."),
    ] = None,
) -> None:
    """Measure reducers on the configured stores.

    The logs are replayed by each number of concurrent sessions, one student per session, and
    in batches, as `lo-kvs ingest` sends them. At the end, the states are compared with those
    computed without a store.

    Real data is not touched: each store uses a temporary prefix (lo-kvs-bench:...) or a
    temporary directory next to the configured one, which is removed at the end. But the
    server of a store runs at full load, and bytes/event includes the traffic of other
    clients: do not measure on a server that is in use.

      lo-kvs bench --config creds.yaml
      lo-kvs bench *.study.log.gz --reducers my_reducers --sessions 1,200 --plot bench.svg

      Exit codes:
        0  success
        1  the states in a store are wrong: events were lost or applied twice
        2  wrong usage or settings, or a file that cannot be read; nothing was done
        4  a store cannot be reached, or rejected the events
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        from lo_kvs.cli.bench_input import work_of
        from lo_kvs.measure.deployment import Trial
        from lo_kvs.measure.timing import Miscount

        counts = _counts(sessions)
        _check_stores(store)
        _check_plot(plot)
        _check_outputs(as_json, plot)
        pipeline, events = work_of(reducers, files)
        trial = Trial(pipeline, events, seconds=seconds, rounds=rounds)
        async with _stores_apart(settings, store) as stores:
            wanted = len(stores) * (len(counts) + 1) * (rounds + 1)
            say(f"{counted(len(events), 'event')}; this takes about {wanted * seconds:.0f} s")
            try:
                figures = await trial.measure(stores, counts, _input_bytes(stores))
            except Miscount as miscount:
                raise Failure(f"events were lost or applied twice: {miscount}", PROBLEMS) from None
        show(figures, reducers)
        if trial.failed:
            say(f"{counted(trial.failed, 'event')} failed in a reducer")
        if trial.unchecked:
            say(f"could not check that every event was applied once: {trial.unchecked}")
        if as_json is not None:
            write_json(as_json, figures, stores)
        if plot is not None:
            draw(plot, figures)
        return DONE

    run(work)


def _counts(text: str) -> list[int]:
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise Failure(f"--sessions {text}: expected positive numbers, such as 1,64,1000", USAGE)
    return sorted(set(counts))


def _check_stores(names: list[str] | None) -> None:
    for name in names or ():
        if names is not None and names.count(name) > 1:
            raise Failure(f"--store {name} is given twice", USAGE)


def _check_outputs(*paths: Path | None) -> None:
    from lo_kvs.output_files import check_place

    named = [path for path in paths if path is not None]
    for path in named:
        check_place(path)
    if len({path.absolute() for path in named}) < len(named):
        raise Failure(f"--json and --plot name the same file, {named[0]}", USAGE)


def _check_plot(plot: Path | None) -> None:
    from lo_kvs.measure import plots

    if plot is not None:
        try:
            plots.check_there()
        except plots.NoPlots as missing:
            raise Failure(f"--plot: {missing}", USAGE) from None


@contextlib.asynccontextmanager
async def _stores_apart(
    settings: Settings, names: Sequence[str] | None
) -> AsyncIterator[dict[str, Store]]:
    """The requested stores, on temporary data, which is removed at the end."""
    from lo_kvs.kvs import KVS, KVSError
    from lo_kvs.kvs.configuration import read_block
    from lo_kvs.measure.deployment import apart
    from lo_kvs.settings import settings as loaded

    settings.load()
    entries, faults = read_block(loaded.get("kvs"), is_reserved=lambda _: False)
    folders: list[Path] = []
    try:
        if not faults:  # otherwise the startup checks report them
            loaded["kvs"], folders = apart(entries, uuid.uuid4().hex[:8])
        settings.start_loaded(*(names or ()))
        stores: dict[str, Store] = {}
        for name in names or KVS.names():
            target = opened(name)
            await target.store.exists("lo-kvs bench")
            say(f"measuring {target}")
            stores[name] = target.store
        try:
            yield stores
        finally:
            for name, store in stores.items():
                try:
                    await store.clear()
                except KVSError as error:
                    say(f"cannot remove the benchmark's data: {opened(name)}: {error}")
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def _input_bytes(stores: Mapping[str, Store]) -> dict[str, InputBytes]:
    """For each store on Redis, a function that returns the bytes its server has received."""
    from lo_kvs.kvs import PersistentRedisKVS
    from lo_kvs.redis_connection import RedisConnection, RedisSettings, default_settings

    async def received(where: RedisSettings | None) -> int | None:
        connection = RedisConnection(where or default_settings(), bounded=True)
        try:
            return int((await connection.client().info("stats"))["total_net_input_bytes"])
        except Exception:  # noqa: BLE001 - managed servers may forbid INFO in various ways
            return None
        finally:
            await connection.aclose()

    return {
        name: functools.partial(received, store._settings)
        for name, store in stores.items()
        if isinstance(store, PersistentRedisKVS)
    }
