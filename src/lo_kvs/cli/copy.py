"""`lo-kvs copy`: one store's keys into another, checked at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lo_kvs.cli.common import (
    AMISS,
    DONE,
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
        str, typer.Option("--prefix", metavar="TEXT", help="Only keys that begin so.")
    ] = "",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace what has other bytes in TO; else it is left and told."
        ),
    ] = False,
    catch_up: Annotated[
        bool,
        typer.Option("--catch-up", help="Copy once more what FROM changes while the copy is made."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be copied; write nothing.")
    ] = False,
    config: Config = None,
    overlay: Overlays = None,
) -> None:
    """Copy a store into another one, and check it.

    FROM and TO are any two entries of the `kvs` section: a single server and a cluster, a
    folder and a server. Keys keep their names, values their bytes, also those that are no
    JSON (they are counted). A key that is in TO with other bytes is left and told, unless
    --overwrite is given. Other keys of TO stay as they are.

    Expiries are not copied: in a redis_ephemeral store each key that is put lives for the
    `expiry` of TO, in all others for good.

    At the end every key is read again from both stores and compared. Programs may use FROM
    meanwhile; what they change is told, and with --catch-up copied once more. What others
    change in TO is never replaced by that.

    A copy that was broken off goes on when the command is given again: what is equal is
    passed over.

      lo-kvs copy default clustered --dry-run
      lo-kvs copy default clustered
      lo-kvs copy clustered back --prefix External,

      Exit codes:
        0    every key of FROM is in TO, with the same bytes
        1    some keys differ, or are not yet on replicas as asked for; the command says which
        2    wrong usage or configuration, or both are the same store; nothing was done
        4    a store cannot be reached, or refused; what was copied by then stays
        130  interrupted; the same
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        from lo_kvs.copying import Copy

        if dry_run and catch_up:
            raise Failure("--dry-run copies nothing, so there is nothing to --catch-up", USAGE)
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
        return AMISS if job.differences or pending else DONE

    run(work)


def _check_source(name: str) -> None:
    """`Failure` for a folder that is not there: opened as a store, it would be made, empty."""
    for entry in _entries():
        if entry.name == name and entry.type == "filesystem":
            path = Path(entry.options["path"])
            if not path.is_dir():
                raise Failure(f"{name}: there is no folder {path}, so nothing to copy", USAGE)


def _check_apart(source: Opened, target: Opened, prefix: str) -> None:
    from lo_kvs.kvs.checks.same_place import shared_place

    for each in (source, target):
        if each.type == "stub":
            raise Failure(
                f"{each} begins empty and ends with this command; name a store that is kept",
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
