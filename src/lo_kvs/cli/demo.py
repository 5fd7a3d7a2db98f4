"""`lo-kvs demo`: a simulated class, from its events to the table of a dashboard."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from lo_kvs.cli.common import (
    AMISS,
    DEFAULT_PATH,
    DONE,
    INTERRUPTED,
    STORE,
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

if TYPE_CHECKING:
    from lo_kvs.ingest.event_log import Item
    from lo_kvs.ingest.job import Reject
    from lo_kvs.kvs import Store

STUDENTS: Final = 30
EVENTS: Final = 75_000  # some ten seconds on two cores and a disk of today
STUDENT_PREFIX: Final = "sim-student-"  # no student of flesh and blood is called that
ROWS_MAX: Final = 30
REDIS_FILE: Final = "redis-demo.yaml"
REDIS_SETTINGS: Final = (
    '{kvs: {default: {type: redis, prefix: "demo:"}}, '
    'redis_connection: {redis_url: "redis://localhost:6379/0"}}'
)


class Row(NamedTuple):
    """What the dashboard shows of one student."""

    student: str
    events: int
    seconds: float
    documents: int
    words: int
    characters: int


def demo(  # noqa: PLR0917 - a parameter for each option
    students: Annotated[int, typer.Option(min=1, help="Students in the class.")] = STUDENTS,
    events: Annotated[int, typer.Option(min=0, help="Events in all.")] = EVENTS,
    seed: Annotated[int, typer.Option(help="Other seeds make other classes.")] = 0,
    path: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help=f"Where the filesystem store lies; not with --config.  [default: {DEFAULT_PATH}]",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="Settings of another store (YAML)."),
    ] = None,
    store: StoreName = "default",
) -> None:
    """Stream a simulated class through the reducers.

    It needs no server: the store is a folder, .lo_kvs here, whatever creds.yaml says. Its
    files are not flushed to the disk one by one (fsync: false), as they can be made again.
    With --config it is the store that is configured there. States that an earlier demo left of
    its simulated students are removed first; nothing else in the store is touched.

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
        settings.start(store)
        target = opened(store)
        removed = await _remove_earlier(target.store)
        if removed:
            say(f"removed {counted(removed, 'state')} that an earlier demo had left")
        simulated = Class(students, events, seed)
        say(f"a class of {students:,} makes {events:,} events; they go into the store {target}")
        code = await _stream(simulated, target)
        await _show(target, sorted(simulated.seen))
        if settings.source is None:
            options = f"--students {students} --events {events} --seed {seed}"
            show(_next_steps(target, options))
        return code

    run(work)


class Class:
    """A simulated class, as batches for the ingest. `seen` are its students so far."""

    def __init__(self, students: int, events: int, seed: int) -> None:
        self.events = events
        self.done = 0
        self.seen: set[str] = set()
        self._arguments = (students, events, seed)

    def batches(self) -> Iterator[list[Item]]:
        from lo_kvs.ingest.event_log import BATCH_LINES_MAX, Item
        from lo_kvs.simulate import simulate

        batch: list[Item] = []
        for number, event in enumerate(simulate(*self._arguments), 1):
            self.seen.add(event["metadata"]["auth"]["safe_user_id"])
            batch.append(Item("the simulated class", number, b"", event))
            if len(batch) == BATCH_LINES_MAX:
                self.done += len(batch)
                yield batch
                batch = []
        self.done += len(batch)
        if batch:
            yield batch


async def _stream(simulated: Class, target: Opened) -> int:
    from lo_kvs.cli.ingest import signals
    from lo_kvs.cli.ingest_progress import Meter
    from lo_kvs.ingest.job import Ingest, Stopped
    from lo_kvs.stream_analytics.pipeline import Pipeline

    rejects: list[Reject] = []
    with Meter(simulated.events) as meter:
        job = Ingest(
            Pipeline.of_module("lo_kvs.reducers"),
            target.store,
            on_reject=rejects.append,
            on_batch=lambda tally: meter.advanced(simulated.done, tally),
        )
        with signals(job):
            try:
                await job.run(simulated.batches())
            except Stopped as stopped:
                code = STORE if stopped.lost else AMISS
                raise Failure(f"stopped at {stopped}", code) from None
    if rejects:
        raise Failure(f"stopped at {rejects[0].item.place}: {rejects[0].reason}")
    tally = job.tally
    show(
        f"{tally.events:,} events in {tally.seconds:.1f} s ({tally.events_s:,.0f}/s), "
        f"each through every reducer of lo_kvs.reducers\n"
    )
    return INTERRUPTED if job.interrupted else DONE


async def _remove_earlier(store: Store) -> int:
    """Remove the states of simulated students, and of nobody else. Returns their number."""
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


async def _show(target: Opened, students: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = await _rows(target.store, students[:ROWS_MAX])
    table = Table(title="External states", title_justify="left")
    for name in ("student", "events", "time on task", "documents", "words", "characters"):
        table.add_column(name, justify="left" if name == "student" else "right")
    for row in rows:
        minutes, seconds = divmod(round(row.seconds), 60)
        table.add_row(
            row.student,
            f"{row.events:,}",
            f"{minutes}:{seconds:02d}",
            str(row.documents),
            f"{row.words:,}",
            f"{row.characters:,}",
        )
    Console().print(table)
    if len(students) > ROWS_MAX:
        show(f"... and {len(students) - ROWS_MAX:,} students more")


async def _rows(store: Store, students: list[str]) -> list[Row]:
    """The students' External states, by the queries that a dashboard would make."""
    from lo_kvs import reducers
    from lo_kvs.stream_analytics.helpers import EventField, KeyField
    from lo_kvs.stream_analytics.query import states

    async def asked(reducer: Any, entities: list[dict[Any, object]], default: Any) -> list[Any]:
        return [row.fields for row in await states(reducer, entities, default=default, store=store)]

    each: list[dict[Any, object]] = [{KeyField.STUDENT: student} for student in students]
    counts, bins, lists = await asyncio.gather(
        asked(reducers.event_count, each, reducers.EVENT_COUNT),
        asked(reducers.time_on_task_bins, each, reducers.TIME_ON_TASK_BINS),
        asked(reducers.document_list, each, reducers.DOCUMENT_LIST),
    )
    papers: list[dict[Any, object]] = [
        {KeyField.STUDENT: student, EventField("doc_id"): document}
        for student, listed in zip(students, lists, strict=True)
        for document in listed["documents"]
    ]
    texts: dict[str, list[str]] = {student: [] for student in students}
    found = await asked(reducers.document_text, papers, reducers.DOCUMENT_TEXT)
    for paper, state in zip(papers, found, strict=True):
        texts[str(paper[KeyField.STUDENT])].append(state["text"])
    return [
        Row(
            student,
            events=count["count"],
            seconds=sum(worked["bins"].values(), worked["older_seconds"]),
            documents=len(texts[student]),
            words=sum(len(text.split()) for text in texts[student]),
            characters=sum(len(text) for text in texts[student]),
        )
        for student, count, worked in zip(students, counts, bins, strict=True)
    ]


def _next_steps(target: Opened, options: str) -> str:
    """Where the states lie, how to look at them, and how to do the same on Redis."""
    folder = Path(target.where)
    files = [file for file in folder.glob("*.json") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    program = "lo-kvs" if shutil.which("lo-kvs") else shlex.quote(sys.argv[0])
    lines = [
        f"\nThey lie in {folder.absolute()}: {len(files):,} JSON files, {size / 1024:,.0f} KB."
    ]
    if folder == Path(DEFAULT_PATH) and Settings().source is None:
        lines.append(f"Look at them:  {program} keys External   and   {program} get KEY")
    lines += [
        "\nThe same on Redis (put your server's address into the first line):",
        f"  echo {shlex.quote(REDIS_SETTINGS)} > {REDIS_FILE}",
        f"  {program} demo {options} --config {REDIS_FILE}",
    ]
    return "\n".join(lines)
