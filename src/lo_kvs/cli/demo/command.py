"""The command: a class streams into a store, is shown, and is compared with what was sent."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lo_kvs.cli.common import (
    DEFAULT_PATH,
    DONE,
    INTERRUPTED,
    PROBLEMS,
    USAGE,
    Failure,
    Opened,
    Settings,
    StoreName,
    counted,
    opened,
    run,
    say,
    show,
)
from lo_kvs.cli.demo.next_steps import NextSteps
from lo_kvs.cli.demo.simulated import Class

if TYPE_CHECKING:
    from lo_kvs.cli.demo.verification import Verification
    from lo_kvs.ingest.job import Ingest
    from lo_kvs.kvs import Store

STUDENTS: Final = 30
EVENTS: Final = 75_000  # some ten seconds on two cores and a disk of today
STUDENT_PREFIX: Final = "sim-student-"  # the ids of simulated students, and of nobody else
ROWS_MAX: Final = 30


def demo(  # noqa: PLR0917 - a parameter for each option
    students: Annotated[int, typer.Option(min=1, help="Students in the class.")] = STUDENTS,
    events: Annotated[int, typer.Option(min=0, help="Events in all.")] = EVENTS,
    seed: Annotated[
        int, typer.Option(help="Random seed; the same seed produces the same class.")
    ] = 0,
    path: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help=f"Folder of the filesystem store; not with --config.  [default: {DEFAULT_PATH}]",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="Settings of another store (YAML)."),
    ] = None,
    store: StoreName = "default",
) -> None:
    """Stream a simulated class through the reducers.

    It needs no server: the store is the folder .lo_kvs here, even if there is a creds.yaml.
    Its files are not flushed to the disk one by one (fsync: false): the demo can make them
    again. --config uses the store of a settings file instead. States of simulated students
    from an earlier demo are removed first; nothing else in the store changes.

    While the events are applied, a terminal shows the class as the store holds it. At the end,
    the store is compared with what was sent. Ctrl-C stops after the current batch and prints
    how to go on.

      lo-kvs demo
      lo-kvs demo --students 5 --events 1000 --seed 7
    """
    folder = str(path or DEFAULT_PATH)
    settings = Settings(
        config,
        find=False,
        default={"kvs": {"default": {"type": "filesystem", "path": folder, "fsync": False}}},
    )

    async def work() -> int:
        if path is not None and config is not None:
            raise Failure(
                f"--path {path} and --config {config} name two stores; leave one of them out",
                USAGE,
            )
        from lo_kvs.cli.demo.streaming import stream

        settings.start(store)
        target = opened(store)
        removed = await _remove_earlier(target.store)
        if removed:
            say(f"removed {counted(removed, 'state')} of an earlier demo")
        simulated = Class(students, events, seed)
        steps = NextSteps(simulated, target, config, path)
        say(f"{counted(students, 'student')} make {counted(events, 'event')}; store: {target}")
        job = await stream(simulated, target, steps.again())
        verified = await _show(job, simulated, target)
        document = next(iter(verified.sent.texts), None)
        show(f"\n{steps.where()}\n")
        for line in (
            steps.go_on(job.tally.events)
            if job.tally.events < events
            else chain(steps.look(document), steps.on_redis())
        ):
            show(line)
        if verified.faults:
            return PROBLEMS
        return INTERRUPTED if job.interrupted else DONE

    run(work)


async def _show(job: Ingest, simulated: Class, target: Opened) -> Verification:
    """Print the table of the class, and whether the store holds what was sent."""
    from lo_kvs.cli.demo.rows import rows_of
    from lo_kvs.cli.demo.table import print_table
    from lo_kvs.cli.demo.verification import verify

    tally = job.tally
    show(
        f"{counted(tally.events, 'event')} applied in {tally.seconds:.1f} s "
        f"({tally.events_s:,.0f}/s) by the reducers of lo_kvs.reducers\n"
    )
    verified = await verify(target.store, simulated.sent(tally.events))
    students = sorted(verified.sent.counts)
    print_table(await rows_of(target.store, students[:ROWS_MAX]), len(students))
    show("")
    for line in verified.lines():
        show(line)
    return verified


async def _remove_earlier(store: Store) -> int:
    """Remove the states of simulated students, and no others. Returns their number."""
    from lo_kvs.kvs import Change, Guard
    from lo_kvs.kvs.backend import GROUP_KEYS_MAX
    from lo_kvs.stream_analytics.keys import parse_key

    found: list[str] = []
    for half in ("Internal", "External"):
        async for key in store.scan(f"{half},lo_kvs.reducers."):
            parts = parse_key(key)
            if parts is not None and parts.fields.get("STUDENT", "").startswith(STUDENT_PREFIX):
                found.append(key)
    changes = [Change(key, Guard.ANY, {key: None}) for key in found]
    for start in range(0, len(changes), GROUP_KEYS_MAX):
        for outcome in await store.commit(changes[start : start + GROUP_KEYS_MAX]):
            if isinstance(outcome, Exception):
                raise outcome
    return len(found)
