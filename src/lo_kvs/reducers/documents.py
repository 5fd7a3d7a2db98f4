"""Reducers for the documents that a student works in.

Events without a document change nothing. Neither do most others, as a student stays in a
document for a while: they return `False, False`, so nothing is written. Events count in the
order of arrival, regardless of their times.
"""

from __future__ import annotations

from lo_kvs.reducers.events import (
    BY_STUDENT,
    Event,
    Reduced,
    State,
    document_id,
    event_time,
)
from lo_kvs.stream_analytics.helpers import kvs_pipeline, student_event_reducer

DOCUMENTS_MAX = 200  # more than a student opens in a year, and 10 KB of Google's ids

DOCUMENT_LIST: State = {"documents": []}
LAST_DOCUMENT: State = {"document_id": None, "since": None}


@student_event_reducer(null_state=DOCUMENT_LIST)
async def document_list(event: Event, state: State) -> Reduced:
    """The documents that a student has worked in, the latest at the end, each once.

    Internal and External: `{"documents": ["essay", "notes"]}`. Of more than `DOCUMENTS_MAX`
    those are dropped that were left the longest time ago.
    """
    document = document_id(event)
    documents = state["documents"]
    if document is None or (documents and documents[-1] == document):
        return False, False
    if document in documents:
        documents.remove(document)
    documents.append(document)
    del documents[:-DOCUMENTS_MAX]
    return state, state


@kvs_pipeline(null_state=LAST_DOCUMENT, scope=BY_STUDENT)
async def last_document(event: Event, state: State) -> Reduced:
    """The document that a student is working in.

    Internal and External: `{"document_id": "essay", "since": 1790000000.25}`; `since` is the
    server's time of the first event after the student turned to it, `None` where that event
    had none. Both are `None` before there is a document.
    """
    document = document_id(event)
    if document is None or state["document_id"] == document:
        return False, False
    state["document_id"] = document
    state["since"] = event_time(event)
    return state, state
