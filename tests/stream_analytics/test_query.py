"""Queries: rows in order, fields by path, and rows without a state."""

from __future__ import annotations

from typing import Any

import pytest
from tests.stream_analytics.support import EXTERNAL, INTERNAL, GatedStore, Run, key_of

from lo_kvs.kvs import KVS, InMemoryKVS, Json, Store
from lo_kvs.stream_analytics.fields import EventField, Field, KeyField
from lo_kvs.stream_analytics.helpers import student_event_reducer
from lo_kvs.stream_analytics.query import ALL, Missing, Row, states


@student_event_reducer(null_state={"null": True})
async def words(event: Any, state: Any) -> tuple[Any, Any]:
    return state, state


def students(*names: str) -> list[dict[Field, object]]:
    return [{KeyField.STUDENT: name} for name in names]


def fields(rows: list[Row]) -> list[Any]:
    return [row.fields for row in rows]


async def put(store: Store, **values: Any) -> None:
    for student, value in values.items():
        await store.set(key_of(words, EXTERNAL, student), value)


def test_rows_are_in_the_requested_order(run: Run) -> None:
    async def scenario(store: Store) -> None:
        names = [f"s{n}" for n in range(30)]
        await put(store, **{name: {"of": name} for name in names})
        asked = [*reversed(names), "s3", "absent", "s3"]
        rows = await states(words, students(*asked))
        assert fields(rows)[:30] == [{"of": name} for name in reversed(names)]
        assert fields(rows)[30:] == [{"of": "s3"}, {}, {"of": "s3"}]
        assert [row.values for row in rows] == students(*asked)
        assert [row.key for row in rows] == [key_of(words, EXTERNAL, name) for name in asked]
        assert [row.present for row in rows] == [name != "absent" for name in asked]

    run(scenario)


def test_states_are_read_together(run_stub: Run) -> None:
    async def scenario(_: Store) -> None:
        store = GatedStore()
        KVS.add_item("default", store)
        await states(words, students(*(f"s{n}" for n in range(100))))
        assert len(store.reads) == 1
        assert await states(words, []) == []

    run_stub(scenario)


def test_row_without_a_state_has_a_copy_of_the_default(run: Run) -> None:
    async def scenario(store: Store) -> None:
        default: Json = {"words": {"seen": []}}
        rows = await states(words, students("s1", "s2"), default=default)
        assert fields(rows) == [default, default]
        rows[0].fields["words"]["seen"].append("mine")  # type: ignore[index,call-overload,union-attr]
        assert rows[1].fields == {"words": {"seen": []}}
        assert default == {"words": {"seen": []}}
        picked = await states(words, students("s1"), default=default, select={"s": "words.seen"})
        assert fields(picked) == [{"s": []}]

    run(scenario)


def test_stored_none_is_a_state_and_takes_no_default(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await put(store, s1=None, s2={}, s3=0)
        rows = await states(words, students("s1", "s2", "s3", "s4"), default={"default": 1})
        assert [row.present for row in rows] == [True, True, True, False]
        assert fields(rows)[1:] == [{}, {"": 0}, {"default": 1}]
        assert "default" not in rows[0].fields
        picked = await states(words, students("s1"), default={"a": 1}, select={"a": "a"})
        assert isinstance(picked[0].fields["a"], Missing)

    run(scenario)


STATE = {
    "text": {"words": 7, "none": None, "list": [{"at": 1}, {"at": 2}], "7": "seven"},
    "": "unnamed",
    "flag": False,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("text.words", 7),
        ("text", STATE["text"]),
        ("text.none", None),
        ("text.list.1.at", 2),
        ("text.7", "seven"),
        ("flag", False),
        ("", "unnamed"),
    ],
)
def test_dotted_path_selects_a_field(run_stub: Run, path: str, value: Any) -> None:
    async def scenario(store: Store) -> None:
        await put(store, s1=STATE)
        assert fields(await states(words, students("s1"), select={"x": path})) == [{"x": value}]

    run_stub(scenario)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nothing", "the state has no field 'nothing'"),
        ("text.nothing.more", "text has no field 'nothing'"),
        ("text.words.more", "text.words is not an object, so it has no field 'more'"),
        ("text.none.more", "text.none is not an object, so it has no field 'more'"),
        ("flag.more", "flag is not an object, so it has no field 'more'"),
        ("text.list.2", "text.list has no item '2'; it has 2 items"),
        ("text.list.-1", "text.list has no item '-1'; it has 2 items"),
        ("text.list.at", "text.list has no item 'at'; it has 2 items"),
        ("text.list." + "9" * 5000, "text.list has no item '999"),
        ("text.list.²", "text.list has no item '²'; it has 2 items"),
        (".text", "the state has no field"),
    ],
)
def test_missing_path_is_an_error_of_its_field_only(run_stub: Run, path: str, reason: str) -> None:
    async def scenario(store: Store) -> None:
        state = {**STATE, "": {}} if path == ".text" else STATE
        await put(store, s1=state, s2={"flag": True})
        select = {"x": path, "flag": "flag"}
        s1, s2, nobody = await states(words, students("s1", "s2", "nobody"), select=select)
        missing = s1.fields["x"]
        assert isinstance(missing, Missing)
        assert missing.path == path
        assert reason in missing.reason or path == ".text"
        assert missing.as_json() == {"error": missing.reason, "path": path}
        assert s1.fields["flag"] is False
        assert isinstance(s2.fields["x"], Missing)
        assert s2.fields["flag"] is True
        assert all(isinstance(field, Missing) for field in nobody.fields.values())

    run_stub(scenario)


def test_all_fields_or_none(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        await put(store, s1={"a": 1, "b": [2]}, s2=[1, 2])
        assert fields(await states(words, students("s1", "s2"), select=ALL)) == [
            {"a": 1, "b": [2]},
            {"": [1, 2]},
        ]
        rows = await states(words, students("s1", "nobody"), select=None)
        assert fields(rows) == [{}, {}]
        assert [row.present for row in rows] == [True, False]

    run_stub(scenario)


@pytest.mark.parametrize("entities", [students("s1"), []])
def test_invalid_selections_are_rejected(run_stub: Run, entities: Any) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(ValueError, match="select must be"):
            await states(words, entities, select="text.words")

    run_stub(scenario)


def test_state_type_is_selectable_and_defaults_to_external(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        await put(store, s1={"shown": 1})
        await store.set(key_of(words, INTERNAL), {"kept": 1})
        assert fields(await states(words, students("s1"))) == [{"shown": 1}]
        (row,) = await states(words, students("s1"), state_type=INTERNAL)
        assert row.fields == {"kept": 1}
        assert row.key == key_of(words, INTERNAL)

    run_stub(scenario)


def test_store_and_other_fields_as_arguments(run_stub: Run) -> None:
    async def scenario(store: Store) -> None:
        other = InMemoryKVS()
        entity: dict[Field, object] = {KeyField.STUDENT: "s1", EventField("doc_id"): "D,STUDENT:x"}
        key = f"External,{__name__}.words,EventField.doc_id:D%2CSTUDENT:x,STUDENT:s1"
        await other.set(key, {"found": True})
        assert fields(await states(words, [entity], store=other)) == [{"found": True}]
        assert [row.present for row in await states(words, [entity])] == [False]

    run_stub(scenario)
