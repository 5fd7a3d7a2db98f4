"""What a dashboard shows of each student, read from the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from lo_kvs.kvs import Store


class Row(NamedTuple):
    """What the store holds of one student.

    seconds  time on task
    last_s   the server's time of the newest event, in seconds since 1970; `None` before it
    """

    student: str
    events: int
    documents: int
    words: int
    characters: int
    seconds: float
    last_s: float | None


async def rows_of(store: Store, students: Sequence[str]) -> list[Row]:
    """A row for each student: the External states, by the queries of a dashboard."""
    from lo_kvs import reducers

    each = [_student(student) for student in students]
    counts, bins, lists = await asyncio.gather(
        _states(store, reducers.event_count, each, reducers.EVENT_COUNT),
        _states(store, reducers.time_on_task_bins, each, reducers.TIME_ON_TASK_BINS),
        _states(store, reducers.document_list, each, reducers.DOCUMENT_LIST),
    )
    documents = [
        (student, document)
        for student, listed in zip(students, lists, strict=True)
        for document in listed["documents"]
    ]
    texts: dict[str, list[str]] = {student: [] for student in students}
    for (student, _), text in (await texts_of(store, documents)).items():
        texts[student].append(text or "")
    return [
        Row(
            student,
            events=count["count"],
            documents=len(texts[student]),
            words=sum(len(text.split()) for text in texts[student]),
            characters=sum(len(text) for text in texts[student]),
            seconds=sum(worked["bins"].values(), worked["older_seconds"]),
            last_s=worked["last_time"],
        )
        for student, count, worked in zip(students, counts, bins, strict=True)
    ]


async def event_counts(store: Store, students: Sequence[str]) -> dict[str, int]:
    """The number of events that were counted for each student."""
    from lo_kvs import reducers

    each = [_student(student) for student in students]
    found = await _states(store, reducers.event_count, each, reducers.EVENT_COUNT)
    return {student: state["count"] for student, state in zip(students, found, strict=True)}


async def texts_of(
    store: Store, documents: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], str | None]:
    """The text of each document, by student and document; `None` where there is none."""
    from lo_kvs import reducers
    from lo_kvs.stream_analytics.helpers import EventField

    each = [
        {**_student(student), EventField("doc_id"): document} for student, document in documents
    ]
    found = await _states(store, reducers.document_text, each, {"text": None})
    return {document: state["text"] for document, state in zip(documents, found, strict=True)}


def _student(student: str) -> dict[Any, object]:
    from lo_kvs.stream_analytics.helpers import KeyField

    return {KeyField.STUDENT: student}


async def _states(
    store: Store, reducer: Any, entities: Sequence[Mapping[Any, object]], default: Any
) -> list[dict[str, Any]]:
    from lo_kvs.stream_analytics.query import states

    found = await states(reducer, entities, default=default, store=store)
    return [row.fields for row in found]
