"""Which documents, in which order, and how many at most."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
from typing import Any

import pytest

from lo_kvs.reducers import (
    DOCUMENT_LIST,
    LAST_DOCUMENT,
    document_list,
    fold,
    last_document,
)
from lo_kvs.reducers.documents import DOCUMENTS_MAX
from lo_kvs.reducers.events import DOCUMENT_ID_MAX


def events_in(*documents: object) -> list[dict[str, Any]]:
    """An event in each of `documents`, at the seconds 1, 2, 3 and so on."""
    return [
        {"client": {"doc_id": document}, "server": {"time": float(second)}}
        for second, document in enumerate(documents, start=1)
    ]


def listed(events: list[dict[str, Any]]) -> list[str]:
    state = copy.deepcopy(DOCUMENT_LIST)
    return list(asyncio.run(fold(document_list, events, state))[0]["documents"])


def last(events: list[dict[str, Any]]) -> tuple[str | None, float | None]:
    state, _ = asyncio.run(fold(last_document, events, dict(LAST_DOCUMENT)))
    return state["document_id"], state["since"]


@pytest.mark.parametrize(
    ("documents", "in_order", "current"),
    [
        ([], [], (None, None)),
        (["a"], ["a"], ("a", 1.0)),
        (["a", "a", "a"], ["a"], ("a", 1.0)),
        (["a", "b", "b"], ["a", "b"], ("b", 2.0)),
        (["a", "b", "a"], ["b", "a"], ("a", 3.0)),
        (["a", "b", "c", "b"], ["a", "c", "b"], ("b", 4.0)),
    ],
)
def test_documents(
    documents: list[str], in_order: list[str], current: tuple[str | None, float | None]
) -> None:
    assert listed(events_in(*documents)) == in_order
    assert last(events_in(*documents)) == current


@pytest.mark.parametrize(
    "odd", [None, "", 7, ["b"], {"b": 1}, "x" * (DOCUMENT_ID_MAX + 1), "\ud83d"]
)
def test_invalid_document_is_none(odd: object) -> None:
    assert listed(events_in("a", odd)) == ["a"]
    assert last(events_in("a", odd)) == ("a", 1.0)


@pytest.mark.parametrize("event", [{}, {"client": None}, {"client": "a"}, {"client": {}}])
def test_event_without_a_document_writes_nothing(event: dict[str, Any]) -> None:
    for reducer, null in ((document_list, DOCUMENT_LIST), (last_document, LAST_DOCUMENT)):
        state = copy.deepcopy(null)
        assert asyncio.run(inspect.unwrap(reducer)(event, state)) == (False, False)
        assert state == null


def test_document_without_a_time_is_still_the_last_one() -> None:
    assert last([*events_in("a"), {"client": {"doc_id": "b"}}]) == ("b", None)


def test_staying_in_a_document_writes_nothing() -> None:
    event = events_in("a")[0]
    for reducer, state in (
        (document_list, {"documents": ["a"]}),
        (last_document, {"document_id": "a", "since": 1.0}),
    ):
        assert asyncio.run(inspect.unwrap(reducer)(event, state)) == (False, False)


def test_list_keeps_the_documents_used_last() -> None:
    names = [f"{number:044}" for number in range(DOCUMENTS_MAX + 50)]
    documents = listed(events_in(*names[:-1], names[60], names[-1]))
    assert len(documents) == DOCUMENTS_MAX
    assert documents[-3:] == [names[-2], names[60], names[-1]]
    assert documents[0] == names[50]
    assert len(json.dumps(documents)) < 10_000
