"""Inbox: when it starts a dispatcher, what it refuses, and who is answered."""

from __future__ import annotations

import logging

import pytest

from lo_kvs.kvs.batching.inbox import Inbox, resolve_all
from lo_kvs.kvs.errors import StoreClosed


def test_begin_is_called_once_for_several_items() -> None:
    begun: list[int] = []
    inbox = Inbox(lambda: begun.append(len(inbox.waiting)))
    inbox.submit("a", print)
    inbox.submit("b", print, 5.0)
    assert begun == [1]
    assert [each[0] for each in inbox.waiting] == ["a", "b"]
    assert inbox.waiting.timed
    inbox.waiting.clear()
    inbox.busy = False
    inbox.submit("c", print)
    assert begun == [1, 1]


def test_closed_inbox_accepts_nothing() -> None:
    inbox = Inbox(list)
    inbox.close("it is closed")
    with pytest.raises(StoreClosed, match="it is closed"):
        inbox.submit("a", print)
    assert not inbox.waiting


def test_failing_callback_does_not_affect_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    answers: list[int] = []
    with caplog.at_level(logging.ERROR):
        resolve_all([("a", answers.append), ("b", fail), ("c", answers.append)], [1, 2, 3])
    assert answers == [1, 3]
    assert "a callback failed" in caplog.text


def test_number_of_answers_must_match() -> None:
    with pytest.raises(ValueError, match="1 answers for 2 items"):
        resolve_all([("a", print), ("b", print)], [1])
