"""`lo-kvs copy`: copies one store's keys into another, and compares both at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lo_kvs.cli.common import (
    DONE,
    PROBLEMS,
    USAGE,
    Config,
    Failure,
    Opened,
    Overlays,
    Settings,
    opened,
    run,
    say,
)
from lo_kvs.cli.copy_output import CopyReport

if TYPE_CHECKING:
    from lo_kvs.kvs.configuration import Entry

FROM_HELP: Final = "Name of the store to copy from, in the `kvs` section."
TO_HELP: Final = "Name of the store to copy to."


def copy(  # noqa: PLR0917 - a parameter for each option
    source: Annotated[str, typer.Argument(metavar="FROM", show_default=False, help=FROM_HELP)],
    target: Annotated[str, typer.Argument(metavar="TO", show_default=False, help=TO_HELP)],
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="TEXT", help="Only keys that start with TEXT.")
    ] = "",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace keys that have a different value in TO. Default: keep and report them.",
        ),
    ] = False,
    catch_up: Annotated[
        bool,
        typer.Option("--catch-up", help="Copy again what changes in FROM during the copy."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be copied; write nothing.")
    ] = False,
    config: Config = None,
    overlay: Overlays = None,
) -> None:
    """Copy a store into another one, and check the result.

    FROM and TO are any two entries of the `kvs` section, such as a single server and a
    cluster, or a directory and a server. Keys and values are copied unchanged, including
    values that are not valid JSON, which are counted. A key that has a different value in TO
    is kept and reported, unless --overwrite is given. Other keys of TO stay unchanged.

    Expiry times are not copied: in a redis_ephemeral store, each copied key gets the `expiry`
    of TO; in other stores, keys do not expire.

    At the end, every key is read again from both stores and compared. Programs may use FROM
    during the copy; their changes are reported, and copied again with --catch-up. Changes of
    other programs in TO are never replaced by that.

    To continue an interrupted copy, run the same command again: equal keys are skipped.

      lo-kvs copy default clustered --dry-run
      lo-kvs copy default clustered
      lo-kvs copy clustered back --prefix External,

      Exit codes:
        0    every key of FROM is in TO with the same value
        1    some keys differ, or are not yet replicated as configured; they are reported
        2    wrong usage or settings, or both are the same store; nothing was done
        4    a store cannot be reached, or rejected the request; keys copied so far stay
        130  interrupted; keys copied so far stay
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        from lo_kvs.copying import Copy

        if dry_run and catch_up:
            raise Failure("--dry-run and --catch-up cannot be combined", USAGE)
        settings.load()
        _check_source(source)
        settings.start_loaded()
        origin, goal = opened(source), opened(target)
        _check_apart(origin, goal, prefix)
        say(f"from {origin}\nto   {goal}")
        with CopyReport(dry_run=dry_run) as report:
            job = Copy(
                origin.store,
                goal.store,
                prefix=prefix,
                overwrite=overwrite,
                catch_up=catch_up,
                dry_run=dry_run,
                on_progress=lambda: report.progressed(job),
            )
            try:
                await job.run()
                if not dry_run:
                    report.copied(job)
                    await job.check()
            except (Exception, asyncio.CancelledError):
                report.stopped(job)
                raise
        pending = report.conclude(job)
        return PROBLEMS if job.differences or pending else DONE

    run(work)


def _check_source(name: str) -> None:
    """Raise `Failure` for a missing directory: opening it as a store would create it."""
    for entry in _entries():
        if entry.name == name and entry.type == "filesystem":
            path = Path(entry.options["path"])
            if not path.is_dir():
                raise Failure(f"{name}: no such directory: {path}", USAGE)


def _check_apart(source: Opened, target: Opened, prefix: str) -> None:
    from lo_kvs.kvs.checks.same_place import shared_place

    for each in (source, target):
        if each.type == "stub":
            raise Failure(
                f"{each} exists only during this command; name a persistent store",
                USAGE,
            )
    entries = {entry.name: entry for entry in _entries()}
    shared = shared_place(entries[source.name], entries[target.name], prefix)
    if shared is not None:
        raise Failure(
            f"{source.name} cannot be copied to {target.name}: {shared}. Name another store",
            USAGE,
        )


def _entries() -> Iterator[Entry]:
    from lo_kvs import settings
    from lo_kvs.kvs.configuration import read_block

    entries, _ = read_block(settings.settings.get("kvs"), is_reserved=lambda _: False)
    yield from entries
