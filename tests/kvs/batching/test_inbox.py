"""Where changes and reads are handed in: who is told to carry, what is refused, who is answered."""

from __future__ import annotations

import logging

import pytest

from lo_kvs.kvs.batching.inbox import Inbox, resolve_all
from lo_kvs.kvs.errors import StoreClosed


def test_somebody_is_told_once_to_carry_what_comes() -> None:
    told: list[int] = []
    inbox = Inbox(lambda: told.append(len(inbox.waiting)))
    inbox.submit("a", print)
    inbox.submit("b", print, 5.0)
    assert told == [1]
    assert [each[0] for each in inbox.waiting] == ["a", "b"]
    assert inbox.waiting.timed
    inbox.waiting.clear()
    inbox.busy = False
    inbox.submit("c", print)
    assert told == [1, 1]


def test_nothing_is_taken_once_it_is_closed() -> None:
    inbox = Inbox(list)
    inbox.close("it is closed")
    with pytest.raises(StoreClosed, match="it is closed"):
        inbox.submit("a", print)
    assert not inbox.waiting


def test_a_callback_that_fails_keeps_nobody_from_the_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    answers: list[int] = []
    with caplog.at_level(logging.ERROR):
        resolve_all([("a", answers.append), ("b", fail), ("c", answers.append)], [1, 2, 3])
    assert answers == [1, 3]
    assert "a callback failed" in caplog.text


def test_no_answer_is_left_over() -> None:
    with pytest.raises(ValueError, match="1 answers for 2 items"):
        resolve_all([("a", print), ("b", print)], [1])
