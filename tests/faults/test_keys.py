"""Keys of every kind, from end to end: whatever text a key is, it keeps its own value.

tests/kvs/filesystem/test_file_names.py and tests/stream_analytics/test_keys.py test the names by
themselves; here the keys go through the stores, and the ids of students and documents through the
reducers.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from tests.faults.stores import STORES, opening
from tests.faults.tally import Tally

from lo_kvs.kvs import KVS, Change, Guard, InvalidKey, Store, codec
from lo_kvs.kvs.changes import KEY_BYTES_MAX, RESERVED_PREFIX
from lo_kvs.stream_analytics.helpers import (
    EventField,
    KeyField,
    KeyStateType,
    student_event_reducer,
)
from lo_kvs.stream_analytics.keys import parse_key
from lo_kvs.stream_analytics.pipeline import Pipeline

# What separators, escapes, paths, patterns, hash tags and twins are made of.
PIECES = [
    *(",", "%", "%2C", "%252C", "%25", "2C", ":", "STUDENT:", ",STUDENT:", ",EventField.doc_id:"),
    *(",EventField.tab_id:", ",EventField.", "Internal,", "External,", "None", "[guest]", "\ufffd"),
    *(
        "{",
        "}",
        "{}",
        "{a}",
        "}{",
        "{{",
        "*",
        "?",
        "[",
        "]",
        "[^a]",
        "\\",
        "'",
        '"',
        "`",
        "$",
        "\0",
    ),
    *("/", "..", ".", "./", "../", "//", "_", "^", "~", " ", "\n", "\r\n", "\t", "\x7f", "\x1b"),
    *("a", "A", "K", "\u212a", "é", "e\u0301", "ß", "ss", "\U0001f600", "\u200d", "\u202e", "0"),
    *("con", "nul", ".json", ".key", ".lo_kvs", "%%", "__lokvs", "n" * 120, "é" * 130, "a/" * 60),
]
WHOLE = st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
#: Short enough that a twin, of up to three times the bytes, is a valid key as well.
LONG = st.builds(lambda part, times: part * times, WHOLE, st.sampled_from([50, 400])).filter(
    lambda key: 3 * len(key.encode(errors="surrogatepass")) < KEY_BYTES_MAX
)
KEYS = st.one_of(WHOLE, WHOLE, WHOLE, LONG).filter(lambda key: not key.startswith(RESERVED_PREFIX))
#: Keys of one call, with the twin of each that a careless file system would take for it.
TWINS: list[Callable[[str], str]] = [
    str.upper,
    str.swapcase,
    lambda key: key + ".",
    lambda key: key + " ",
    lambda key: "_" + key,
    lambda key: key.replace("/", "%2f"),
    lambda key: unicodedata.normalize("NFD", key),
    lambda key: key + "/",
]
NO_KEYS = WHOLE.map(lambda text: RESERVED_PREFIX + text) | st.builds(
    lambda before, half, after: before + half + after,
    WHOLE,
    st.sampled_from(["\ud800", "\udfff", "\udc80", "\ud83d\ude00"]),
    WHOLE,
)


@st.composite
def with_twins(draw: st.DrawFn) -> list[str]:
    keys = draw(st.lists(KEYS, min_size=1, max_size=5))
    twins = [draw(st.sampled_from(TWINS))(key) for key in keys]
    return [key for key in dict.fromkeys([*keys, *twins]) if not key.startswith(RESERVED_PREFIX)]


def fuzz(examples: int, seed: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    settings = hypothesis.settings(
        max_examples=examples, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        return hypothesis.seed(seed)(settings(test))

    return decorate


# -- keys of stores ----------------------------------------------------------------------


@pytest.mark.parametrize("name", STORES)
def test_any_text_is_a_key_of_its_own(
    name: str, redis_url: str, tmp_path: Path, seed: int, tally: Tally
) -> None:
    folder = tmp_path / "parent" / "store"
    open_store, wipe = opening(name, folder, redis_url)
    (tmp_path / "parent").mkdir()
    examples, tried = 40, 0

    @fuzz(examples, seed)
    @hypothesis.given(with_twins(), NO_KEYS)
    def check(keys: list[str], no_key: str) -> None:
        nonlocal tried
        tried += len(keys)
        wipe()
        with asyncio.Runner() as runner:
            store = open_store()
            try:
                runner.run(each_keeps_its_value(store, keys))
                runner.run(refuses(store, no_key, keys))
            finally:
                runner.run(store.aclose())
        if folder.exists():
            nothing_escaped(folder)

    check()
    tally("T19", tried, f"{name}: round trip, each its own value")


async def each_keeps_its_value(store: Store, keys: list[str]) -> None:
    for at, key in enumerate(keys):
        await store.set(key, [at, key])
    expected = {key: [at, key] for at, key in enumerate(keys)}
    assert await store.multiget(keys) == list(expected.values())
    assert sorted(await store.keys()) == sorted(keys)
    assert await store.dump() == expected
    assert sorted(await store.keys(keys[0])) == sorted(k for k in keys if k.startswith(keys[0]))
    gone = keys[::2]
    for key in gone:
        assert await store.remove(key) is True
    # One change of them all, so that a file system has a journal of them.
    puts = {key: codec.encode(key) if key in gone else None for key in keys}
    assert await store.commit([Change(keys[-1], Guard.ANY, puts)]) == [None]
    assert await store.dump() == {key: key for key in gone}
    assert [await store.exists(key) for key in keys] == [key in gone for key in keys]


async def refuses(store: Store, no_key: str, keys: list[str]) -> None:
    stood = await store.dump()
    change = Change(keys[0], Guard.ANY, {keys[0]: b"1", no_key: b"1"})
    for use in (
        lambda: store.get(no_key),
        lambda: store.multiset({keys[0]: 1, no_key: 1}),
        lambda: store.commit([change]),
        lambda: store.keys(no_key),
    ):
        with pytest.raises(InvalidKey):
            await use()
    assert await store.dump() == stood


def nothing_escaped(folder: Path) -> None:
    """All is in the folder, under names that no file system takes for one another."""
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    names = [path.relative_to(folder) for path in folder.rglob("*")]
    assert all(path.resolve().is_relative_to(folder.resolve()) for path in folder.rglob("*"))
    assert all(str(name).isascii() for name in names)
    assert len({str(name).lower() for name in names}) == len(names)


# -- keys of reducers ----------------------------------------------------------------------

DOC, TAB = EventField("doc_id"), EventField("tab_id")


async def collect(event: Any, state: Any) -> tuple[Any, Any]:
    """Keeps every id that came along: a state that two of them share shows both."""
    seen = [*state, event["client"]["ids"]]
    return seen, seen


# One name and three scopes: keys of states whose ids forge a field would meet those of others.
REDUCERS = {
    scope: student_event_reducer(
        null_state=[], scope=scope, module_override="m", qualname_override="collect"
    )(collect)
    for scope in ((KeyField.STUDENT,), (KeyField.STUDENT, DOC), (KeyField.STUDENT, DOC, TAB))
}
PIPELINE = Pipeline(
    [
        {"context": str(len(scope)), "function": reducer, "scope": frozenset(scope)}
        for scope, reducer in REDUCERS.items()
    ]
)
#: Student, document, tab; as many of them as the scope has. Few letters, so that ids meet.
IDS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(PIECES[:14]), max_size=4).map("".join),
        st.lists(st.sampled_from(PIECES), max_size=3).map("".join),
        st.text(max_size=8),
        st.sampled_from(
            ["", "None", "S,EventField.doc_id:D", "D,EventField.tab_id:T", "D", "T", "{S}"]
        ),
    ),
    min_size=1,
    max_size=3,
).map(tuple)


def event_of(ids: tuple[str, ...]) -> dict[str, Any]:
    fields = dict(zip(("doc_id", "tab_id"), ids[1:], strict=False))
    return {
        "client": {"event": "e", "ids": list(ids), **fields},
        "metadata": {"source": str(len(ids)), "auth": {"safe_user_id": ids[0]}},
    }


@pytest.mark.parametrize("name", ["stub", "subdirs", "redis", "redis with a prefix"])
def test_event_ids_do_not_collide(
    name: str, redis_url: str, tmp_path: Path, seed: int, tally: Tally
) -> None:
    open_store, wipe = opening(name, tmp_path / "store", redis_url)
    examples, tried = 40, 0

    @fuzz(examples, seed)
    @hypothesis.given(st.lists(IDS, min_size=1, max_size=8, unique=True))
    @hypothesis.example([("S", "D,EventField.tab_id:T"), ("S", "D", "T")])
    @hypothesis.example([("S,EventField.doc_id:D",), ("S", "D"), ("S", "D%2CEventField.tab_id:T")])
    @hypothesis.example([("{S}", "D"), ("S", "{D}"), ("{S", "D}"), ("S", "D"), ("{}", "")])
    def check(ids: list[tuple[str, ...]]) -> None:
        nonlocal tried
        tried += len(ids)
        wipe()
        with asyncio.Runner() as runner:
            store = open_store()
            KVS.add_item("default", store)
            try:
                runner.run(each_has_its_state(store, ids))
            finally:
                KVS.remove_item("default")
                runner.run(store.aclose())

    check()
    tally("T19", tried, f"{name}: ids with commas, braces, percent signs share no state")


async def each_has_its_state(store: Store, ids: list[tuple[str, ...]]) -> None:
    events = [event_of(each) for each in ids]
    assert await PIPELINE.process_batch(events) == [None] * len(events)
    for event in events:  # and once more, one by one
        assert await PIPELINE.process(event) == 1
    kept: dict[str, Any] = await store.dump()
    assert len(kept) == 2 * len(ids)
    found_keys = {}
    for key, seen in kept.items():
        parts = parse_key(key)
        assert parts is not None
        assert parts.reducer == "m.collect"
        fields = parts.fields
        order = [fields.pop(name, None) for name in ("STUDENT", DOC.name, TAB.name)]
        assert fields == {}
        said = tuple(value for value in order if value is not None)
        assert seen == [list(said)] * 2, key
        found_keys[parts.state_type, said] = key
    assert found_keys.keys() == {(kind, each) for kind in KeyStateType for each in ids}


BAD_IDS = ["\ud800", "S\udfff", "\ud83d\ude00"]


@pytest.mark.parametrize("name", ["stub", "subdirs", "redis"])
def test_invalid_id_fails_only_its_own_event(name: str, redis_url: str, tmp_path: Path) -> None:
    open_store, _ = opening(name, tmp_path / "store", redis_url)

    async def scenario() -> None:
        async with open_store() as store:
            KVS.add_item("default", store)
            try:
                bad = [event_of(ids) for text in BAD_IDS for ids in ((text,), ("S", text))]
                errors = await PIPELINE.process_batch([*bad, event_of(("S",))])
                assert all(isinstance(error, InvalidKey) for error in errors[:-1])
                assert errors[-1] is None
                for event in bad:
                    with pytest.raises(InvalidKey):
                        await PIPELINE.process(event)
                assert sorted(await store.keys()) == [
                    "External,m.collect,STUDENT:S",
                    "Internal,m.collect,STUDENT:S",
                ]
            finally:
                KVS.remove_item("default")

    asyncio.run(scenario())
