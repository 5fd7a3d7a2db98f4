"""The built-in reducers for events of a writing class; also examples for your own.

| reducer             | one state for each | External state                           |
|---------------------|--------------------|------------------------------------------|
| `event_count`       | student            | `count`                                  |
| `time_on_task`      | student + document | `seconds`, `last_time`                   |
| `time_on_task_bins` | student            | `bins`, `older_seconds`, `last_time`     |
| `document_list`     | student            | `documents`                              |
| `last_document`     | student            | `document_id`, `since`                   |
| `document_text`     | student + document | `text`, `bad_commands`                   |

A reducer is a function of an event and the previous state, and of nothing else: it may run
more than once on an event, with a different state the second time, and only one result is kept.
It may modify the state that it gets. It returns its Internal state (what it needs for the next
event) and its External state (what dashboards read), or `False` for a half that is not to be
written. If both are the same object, it is encoded once. States are plain JSON. They are written
with every event, so all except the text are limited to a few kilobytes.

To use one of them with another scope, pass its function to your own decorator:

    by_student = kvs_pipeline(null_state=TIME_ON_TASK, scope=BY_STUDENT)
    student_time_on_task = by_student(inspect.unwrap(time_on_task))
"""

from __future__ import annotations

from typing import Any

from lo_kvs.reducers.activity import (
    EVENT_COUNT,
    TIME_ON_TASK,
    TIME_ON_TASK_BINS,
    event_count,
    time_on_task,
    time_on_task_bins,
)
from lo_kvs.reducers.documents import (
    DOCUMENT_LIST,
    LAST_DOCUMENT,
    document_list,
    last_document,
)
from lo_kvs.reducers.events import BY_DOCUMENT, BY_STUDENT, SOURCE
from lo_kvs.reducers.folding import fold
from lo_kvs.reducers.text import DOCUMENT_TEXT, document_text

__all__ = [
    "BY_DOCUMENT",
    "BY_STUDENT",
    "DOCUMENT_LIST",
    "DOCUMENT_TEXT",
    "EVENT_COUNT",
    "LAST_DOCUMENT",
    "REDUCERS",
    "SOURCE",
    "TIME_ON_TASK",
    "TIME_ON_TASK_BINS",
    "document_list",
    "document_text",
    "event_count",
    "fold",
    "last_document",
    "time_on_task",
    "time_on_task_bins",
]

# `default` is what a query returns for a student without a state.
REDUCERS: list[dict[str, Any]] = [
    {"context": SOURCE, "scope": scope, "function": function, "default": default}
    for function, scope, default in (
        (event_count, BY_STUDENT, EVENT_COUNT),
        (time_on_task, BY_DOCUMENT, TIME_ON_TASK),
        (time_on_task_bins, BY_STUDENT, TIME_ON_TASK_BINS),
        (document_list, BY_STUDENT, DOCUMENT_LIST),
        (last_document, BY_STUDENT, LAST_DOCUMENT),
        (document_text, BY_DOCUMENT, DOCUMENT_TEXT),
    )
]
