"""The text that comes out is the text that the student sees."""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import Any

import pytest

from lo_kvs.reducers import DOCUMENT_TEXT, document_text, fold
from lo_kvs.reducers import text as text_module
from lo_kvs.simulate import SimulatedClass

SMILE = "\U0001f642"
UNKNOWN = "\ufffd"


def insert(text: object, at: object) -> dict[str, Any]:
    return {"ty": "is", "s": text, "ibi": at}


def delete(first: object, last: object) -> dict[str, Any]:
    return {"ty": "ds", "si": first, "ei": last}


def save(*commands: object) -> dict[str, Any]:
    bundles = [{"commands": list(commands)}]
    return {"client": {"event": "google_docs_save", "doc_id": "D", "bundles": bundles}}


def texts_of(events: list[dict[str, Any]], state: Any = None) -> dict[str, Any]:
    internal, _ = asyncio.run(fold(document_text, events, state or dict(DOCUMENT_TEXT)))
    return dict(internal)


@pytest.mark.parametrize("seed", range(30))
def test_text_is_that_of_the_simulated_class(seed: int) -> None:
    simulated = SimulatedClass(students=4, events=1500, seed=seed, documents=2, length=400)
    events: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in simulated.events():
        if "doc_id" in event["client"]:
            entity = (event["metadata"]["auth"]["safe_user_id"], event["client"]["doc_id"])
            events.setdefault(entity, []).append(event)
    reduced = {entity: texts_of(saves) for entity, saves in events.items()}
    assert {entity: state["text"] for entity, state in reduced.items()} == simulated.texts
    assert all(state["bad_commands"] == 0 for state in reduced.values())


GOOD = [
    ("nothing", [], ""),
    ("one insertion", [insert("abc", 1)], "abc"),
    ("append", [insert("abc", 1), insert("de", 4)], "abcde"),
    ("insert in front", [insert("abc", 1), insert("de", 1)], "deabc"),
    ("insert within", [insert("abc", 1), insert("de", 2)], "adebc"),
    ("delete one", [insert("abc", 1), delete(2, 2)], "ac"),
    ("delete the end", [insert("abc", 1), delete(2, 3)], "a"),
    ("delete all", [insert("abc", 1), delete(1, 3)], ""),
    ("empty insertion", [insert("abc", 1), insert("", 2)], "abc"),
    ("styles", [insert("abc", 1), {"ty": "as", "si": 1, "ei": 2, "st": "text"}], "abc"),
    ("nested", [{"ty": "mlti", "mts": [insert("abc", 1), delete(1, 1)]}, insert("x", 1)], "xbc"),
    (
        "nested twice",
        [{"ty": "mlti", "mts": [{"ty": "mlti", "mts": [insert("b", 1)]}, insert("a", 1)]}],
        "ab",
    ),
    (
        "replaced",
        [insert("old", 1), {"ty": "rplc", "snapshot": [insert("new", 1)]}, insert("er", 4)],
        "newer",
    ),
    ("replaced by nothing", [insert("old", 1), {"ty": "rplc", "snapshot": []}], ""),
    ("after an emoji", [insert(SMILE + "b", 1), insert("a", 3)], SMILE + "ab"),
    ("emoji deleted", [insert("a" + SMILE + "b", 1), delete(2, 3)], "ab"),
    (
        "emoji into text",
        [insert("café雪s", 1), insert(SMILE, 5), delete(1, 3)],
        "é" + SMILE + "雪s",
    ),
    (
        "emoji in two halves",
        [insert("ab", 1), insert("\ud83d", 2), insert("\ude42", 3)],
        f"a{SMILE}b",
    ),
]


@pytest.mark.parametrize(
    ("commands", "text"), [case[1:] for case in GOOD], ids=[c[0] for c in GOOD]
)
def test_commands(commands: list[Any], text: str) -> None:
    expected = {"text": text, "bad_commands": 0}
    assert texts_of([save(*commands)]) == expected
    if "\ud83d" not in json.dumps(commands, ensure_ascii=False):
        assert texts_of([save(command) for command in commands]) == expected


BAD = [
    ("insertion beyond the end", [insert("x", 5)], "abcx", 1),
    ("insertion before the start", [insert("x", 0)], "xabc", 1),
    ("insertion far before", [insert("x", -(10**30))], "xabc", 1),
    ("deletion over the end", [delete(2, 99)], "a", 1),
    ("deletion over both ends", [delete(-5, 10**30)], "", 1),
    ("deletion beyond the end", [delete(4, 9)], "abc", 1),
    ("deletion turned round", [delete(3, 2)], "abc", 1),
    ("text that is none", [insert(None, 1), insert(7, 1), insert(["x"], 1)], "abc", 3),
    ("position that is none", [insert("x", "1"), insert("x", 1.5), insert("x", None)], "abc", 3),
    ("missing position", [{"ty": "is", "s": "x"}, {"ty": "ds", "si": 1}], "abc", 2),
    ("missing list", [{"ty": "mlti"}, {"ty": "rplc", "snapshot": None}], "abc", 2),
    ("no command", [None, 3, "is", [], {}, {"ty": 5}], "abc", 6),
    ("good after bad", [None, insert("d", 4)], "abcd", 1),
    ("half an emoji", [insert("\ud83d", 4)], "abc" + UNKNOWN, 1),
    ("emoji cut in half", [insert(SMILE, 4), delete(4, 4)], "abc" + UNKNOWN, 1),
]


@pytest.mark.parametrize(
    ("commands", "text", "bad"), [case[1:] for case in BAD], ids=[case[0] for case in BAD]
)
def test_bad_commands_are_counted_and_do_no_harm(commands: list[Any], text: str, bad: int) -> None:
    state = texts_of([save(insert("abc", 1)), save(*commands)])
    assert state == {"text": text, "bad_commands": bad}
    assert json.loads(json.dumps(state).encode("utf-8")) == state
    state["text"].encode("utf-8")  # no half of a character, which no store would take


@pytest.mark.parametrize("bundles", [None, "x", {}, [None], [7], [{}], [{"commands": None}]])
def test_save_without_commands_is_counted(bundles: object) -> None:
    event = {"client": {"event": "google_docs_save", "bundles": bundles}}
    assert texts_of([event]) == {"text": "", "bad_commands": 1}


def test_commands_nested_to_any_depth() -> None:
    command = insert("deep", 1)
    for _ in range(50_000):
        command = {"ty": "mlti", "mts": [command]}
    assert texts_of([save(command)])["text"] == "deep"
    while "mts" in command:  # freed step by step: freeing it at once may exhaust the C stack
        command = command.pop("mts").pop()


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"client": None},
        {"client": {"event": "keystroke", "bundles": save(insert("x", 1))["client"]["bundles"]}},
        save(),
        save({"ty": "as", "si": 1, "ei": 1}),
        save(insert("x", 1), delete(1, 1)),
    ],
    ids=["empty", "no client", "another event", "no commands", "style", "undone at once"],
)
def test_event_that_changes_no_text_writes_nothing(event: dict[str, Any]) -> None:
    assert asyncio.run(inspect.unwrap(document_text)(event, dict(DOCUMENT_TEXT))) == (False, False)


def test_both_halves_are_one_object() -> None:
    internal, external = asyncio.run(
        inspect.unwrap(document_text)(save(insert("x", 1)), dict(DOCUMENT_TEXT))
    )
    assert internal is external


def test_text_stops_growing_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_module, "TEXT_MAX", 5)
    commands = [insert("abcd", 1), insert("ef", 5), insert("e", 5), insert("f", 9)]
    assert texts_of([save(*commands)]) == {"text": "abcde", "bad_commands": 2}
