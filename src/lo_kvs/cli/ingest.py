"""`lo-kvs ingest` and `lo-kvs simulate`: load event logs into a store, and write simulated ones."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lo_kvs.cli.common import (
    DONE,
    PROBLEMS,
    USAGE,
    Config,
    Failure,
    Overlays,
    Settings,
    StoreName,
    counted,
    opened,
    run,
    say,
)
from lo_kvs.cli.interrupts import interrupts

if TYPE_CHECKING:
    from lo_kvs.ingest.event_log import EventLogs
    from lo_kvs.ingest.job import Ingest, Stopped
    from lo_kvs.stream_analytics.pipeline import Pipeline


def ingest(  # noqa: PLR0917 - a parameter for each option
    reducers: Annotated[
        str,
        typer.Option(
            "--reducers",
            "-r",
            metavar="MODULE",
            show_default=False,
            help="Python module with REDUCERS, importable from the current directory; "
            "lo_kvs.reducers has the built-in ones.",
        ),
    ],
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", show_default=False, help="- or no FILE: standard input."),
    ] = None,
    config: Config = None,
    overlay: Overlays = None,
    store: StoreName = "default",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Stop at the first line that is not a valid event, or that fails."
        ),
    ] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(
            "--rejects",
            metavar="FILE",
            help="Append lines that were skipped or failed to FILE, unchanged; "
            "line N of FILE.why has the reason. New files are private (0600).",
        ),
    ] = None,
) -> None:
    """Run event logs through reducers into a store.

    FILEs are .study.log, .study.log.gz or JSON lines. Each line is one event: JSON, or JSON,
    a TAB and an ISO time. Files are read in the given order.

    Lines that are not valid events are reported, counted and skipped. Blank lines are
    skipped. Each run applies all events: a log that is ingested twice is counted twice.
    Ctrl-C finishes the current batch and prints where to resume; press it again to stop at
    once. With --strict, the line where it stops and all later lines are not applied; each
    batch runs twice, first in memory.

      lo-kvs ingest *.study.log.gz --reducers lo_kvs.reducers
      zcat old.gz | lo-kvs ingest --reducers my_reducers --config creds.yaml --json

      Exit codes:
        0    every event is in the store; some lines may have been skipped
        1    events failed in a reducer; a file could not be read to its end, is of another
             kind, or has lines but no event; or no reducer processed any event
        2    wrong usage or settings, or a file that cannot be read; nothing was done
        3    stopped by --strict
        4    the store cannot be reached, or rejected the events; the run stopped there
        130  interrupted
    """
    settings = Settings(config, overlay or ())

    async def work() -> int:
        from lo_kvs.ingest.job import Ingest, Stopped

        logs = logs_named(files or ["-"])
        pipeline = pipeline_of(reducers)
        _check_rejects(rejects, files or ["-"])
        settings.start(store)
        target = opened(store)
        if not as_json:
            origin = settings.source or "no creds.yaml here: the built-in default"
            say(f"store: {target}; settings: {origin}")
        if not files and sys.stdin.isatty():
            say("reading events from standard input; press Ctrl-D to end")
        stopped: Stopped | None = None
        from lo_kvs.cli.ingest_progress import RejectsFailed, Report
        from lo_kvs.cli.ingest_summary import (
            Ending,
            ending_of,
            explain,
            next_place,
            summarize,
        )

        ending: Ending | None = None
        with Report(logs, rejects) as report:
            job = Ingest(
                pipeline,
                target.store,
                strict=strict,
                on_reject=report.rejected,
                on_batch=report.progressed,
            )
            with signals(job):
                try:
                    await job.run(logs.batches())
                except Stopped as error:
                    stopped = error
                except RejectsFailed as error:
                    ending = Ending(PROBLEMS, str(error), next_place(job.tally))
        report.conclude()
        ending = ending or ending_of(job, stopped, target)
        if ending is None:
            for line in explain(job.tally, pipeline):
                say(f"lo-kvs: {line}")
        return await summarize(job, logs, target, ending, as_json=as_json, rejects=rejects)

    run(work)


def simulate(
    file: Annotated[
        str, typer.Argument(metavar="FILE", show_default=False, help="-: standard output.")
    ],
    students: Annotated[int, typer.Option(min=1, help="Students in the class.")] = 10,
    events: Annotated[int, typer.Option(min=0, help="Events in all.")] = 1000,
    seed: Annotated[
        int, typer.Option(help="Random seed; the same seed produces the same class.")
    ] = 0,
) -> None:
    """Write the event log of a simulated class.

    FILE is compressed if its name ends in .gz; an existing FILE is replaced. The same options
    write the same bytes.

      lo-kvs simulate class.study.log.gz --students 30 --events 20000
    """

    async def work() -> int:
        from lo_kvs.simulate import simulate as simulated
        from lo_kvs.simulate import write_study_log

        path = "/dev/stdout" if file == "-" else file
        count = write_study_log(path, simulated(students, events, seed))
        if file != "-":
            say(f"wrote {counted(count, 'event')} of {counted(students, 'student')} to {file}")
        return DONE

    run(work)


def signals(job: Ingest) -> contextlib.AbstractContextManager[None]:
    """Ctrl-C and SIGTERM end the job after the current batch; a second one ends it at once."""
    from lo_kvs.cli.ingest_summary import stop_text

    return interrupts.ending_by(
        job.interrupt,
        "finishing the current batch; press Ctrl-C again to stop at once",
        lambda: stop_text("interrupted twice", job.tally, None),
    )


def logs_named(names: list[str]) -> EventLogs:
    """The event logs of a command's arguments. All unreadable ones are reported together."""
    from lo_kvs.ingest.event_log import EventLogs, Unreadable

    try:
        return EventLogs(names)
    except Unreadable as error:
        raise Failure(f"nothing was done:\n{error}", USAGE) from None


def pipeline_of(module: str) -> Pipeline:
    """The pipeline of the module that `--reducers` names, also from the current directory."""
    from lo_kvs.stream_analytics.pipeline import BadReducers, Pipeline

    here = os.fspath(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does
    try:
        return Pipeline.of_module(module)
    except BadReducers as error:
        raise Failure(f"--reducers {module}: {error}", USAGE) from None
    except Exception as error:  # noqa: BLE001
        # A user's module can raise anything when it is imported.
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        place = f" ({last.tb_frame.f_code.co_filename}:{last.tb_lineno})" if last else ""
        if isinstance(error, SyntaxError):
            place = ""  # its text contains the place
        raise Failure(
            f"--reducers {module}: cannot be imported: {type(error).__name__}: {error}{place}",
            USAGE,
        ) from None


def _check_rejects(rejects: Path | None, names: list[str]) -> None:
    if rejects is None:
        return
    if rejects.name in {"", "-"}:
        raise Failure(f"--rejects {rejects}: expected a file name", USAGE)
    for written in (rejects, rejects.with_name(f"{rejects.name}.why")):
        for name in names:
            if written.exists() and name != "-" and written.samefile(name):
                raise Failure(f"--rejects {written}: this file is also an input", USAGE)
