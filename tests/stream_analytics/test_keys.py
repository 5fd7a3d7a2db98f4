"""Keys: the ones that other programs know, byte for byte, and none that an event forges."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lo_kvs.stream_analytics.fields import (
    EventField,
    Field,
    KeyField,
    KeyStateType,
    ScopeFieldError,
)
from lo_kvs.stream_analytics.helpers import kvs_pipeline, make_key
from lo_kvs.stream_analytics.keys import fully_qualified_function_name, parse_key

INTERNAL, EXTERNAL = KeyStateType.INTERNAL, KeyStateType.EXTERNAL
DOC, TAB = EventField("doc_id"), EventField("tab_id")
RECONSTRUCT = "writing_observer.writing_analysis.reconstruct"
EVERY_FIELD = "CLASS:C,EventField.doc_id:D,EventField.tab_id:T,RESOURCE:R,STUDENT:S,TEACHER:T"


async def count(event: Any, state: Any) -> tuple[Any, Any]:
    return state, state


@pytest.mark.parametrize(
    ("state_type", "fields", "key"),
    [
        (
            INTERNAL,
            {KeyField.STUDENT: "S", DOC: "D"},
            f"Internal,{RECONSTRUCT},EventField.doc_id:D,STUDENT:S",
        ),
        (EXTERNAL, {KeyField.STUDENT: "S"}, f"External,{RECONSTRUCT},STUDENT:S"),
        (INTERNAL, {}, f"Internal,{RECONSTRUCT}"),
        (
            INTERNAL,
            {
                KeyField.TEACHER: "T",
                KeyField.STUDENT: "S",
                KeyField.RESOURCE: "R",
                KeyField.CLASS: "C",
                TAB: "T",
                DOC: "D",
            },
            f"Internal,{RECONSTRUCT},{EVERY_FIELD}",
        ),
        (INTERNAL, {DOC: None}, f"Internal,{RECONSTRUCT},EventField.doc_id:None"),
        (INTERNAL, {DOC: 17}, f"Internal,{RECONSTRUCT},EventField.doc_id:17"),
        # Plain ASCII order: capitals before small letters.
        (
            INTERNAL,
            {EventField("b"): 1, EventField("B"): 2, EventField("a"): 3},
            f"Internal,{RECONSTRUCT},EventField.B:2,EventField.a:3,EventField.b:1",
        ),
        # All of these are harmless, so they stay as they are today.
        (
            INTERNAL,
            {KeyField.STUDENT: "a,b:c%2Cd%,100%25,é/../STUDENT:x,doc_id:y, STUDENT:z"},
            f"Internal,{RECONSTRUCT},STUDENT:a,b:c%2Cd%,100%25,é/../STUDENT:x,doc_id:y, STUDENT:z",
        ),
        (INTERNAL, {KeyField.STUDENT: "[guest]"}, f"Internal,{RECONSTRUCT},STUDENT:[guest]"),
    ],
)
def test_ordinary_keys_keep_their_format(
    state_type: KeyStateType, fields: dict[Field, object], key: str
) -> None:
    assert make_key(RECONSTRUCT, fields, state_type) == key


def test_reducer_has_the_key_of_its_function() -> None:
    fields: dict[Field, object] = {KeyField.STUDENT: "S"}
    module = count.__module__
    assert make_key(count, fields, INTERNAL) == f"Internal,{module}.count,STUDENT:S"
    assert make_key(kvs_pipeline()(count), fields, INTERNAL) == make_key(count, fields, INTERNAL)


def test_nested_function_has_its_qualname_in_the_key() -> None:
    async def inner(event: Any, state: Any) -> tuple[Any, Any]:
        return state, state

    name = f"{__name__}.test_nested_function_has_its_qualname_in_the_key.<locals>.inner"
    assert make_key(inner, {}, INTERNAL) == f"Internal,{name}"
    assert make_key(kvs_pipeline()(inner), {}, INTERNAL) == f"Internal,{name}"


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ({"module_override": "old.module"}, "old.module.count"),
        ({"qualname_override": "tally"}, f"{__name__}.tally"),
        ({"module_override": "old", "qualname_override": "C.tally"}, "old.C.tally"),
    ],
)
def test_overrides_appear_in_keys(overrides: dict[str, str], name: str) -> None:
    reducer = kvs_pipeline(**overrides)(count)  # type: ignore[call-overload]
    assert fully_qualified_function_name(reducer) == name
    assert make_key(reducer, {KeyField.STUDENT: "S"}, EXTERNAL) == f"External,{name},STUDENT:S"
    assert fully_qualified_function_name(count) == f"{__name__}.count"


@pytest.mark.parametrize("override", ["module_override", "qualname_override"])
def test_override_with_a_comma_is_rejected(override: str) -> None:
    with pytest.raises(ScopeFieldError, match="comma"):
        kvs_pipeline(**{override: "a,STUDENT:b"})  # type: ignore[call-overload]


@pytest.mark.parametrize("field", ["STUDENT", "EventField.doc_id", None, KeyStateType.INTERNAL])
def test_invalid_field_is_rejected(field: Any) -> None:
    with pytest.raises(ScopeFieldError, match="expected a KeyField or an EventField"):
        make_key("m.f", {field: "x"}, INTERNAL)


def test_invalid_state_type_is_rejected() -> None:
    with pytest.raises(ScopeFieldError, match="expected a KeyStateType"):
        make_key("m.f", {}, "Internal")  # type: ignore[arg-type]


def test_document_id_cannot_forge_a_tab_id() -> None:
    forging = make_key("m.f", {DOC: "D,EventField.tab_id:T"}, INTERNAL)
    genuine = make_key("m.f", {DOC: "D", TAB: "T"}, INTERNAL)
    assert genuine == "Internal,m.f,EventField.doc_id:D,EventField.tab_id:T"
    assert forging == "Internal,m.f,EventField.doc_id:D%2CEventField.tab_id:T"


# Whatever escaping and the names of fields are made of, in any order.
PIECES = ["%", "2C", "25", "%2C", "%25", ",", ":", "STUDENT:", "STUDENT", "CLASS:", "a", "\n"]
PIECES += ["EventField.", "EventField.doc_id:", "EventField.x", "é", "\ud800"]
HOSTILE = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text()
FIELDS: st.SearchStrategy[Field] = st.sampled_from(list(KeyField)) | st.one_of(
    st.sampled_from(["doc_id", "x", "%2CSTUDENT", "2C", "\n"]),
    st.text(min_size=1).filter(lambda name: not set(name) & set(",:")),
).map(EventField)
VALUES: st.SearchStrategy[dict[Field, str]] = st.dictionaries(FIELDS, HOSTILE, max_size=4)


@given(values=VALUES, state_type=st.sampled_from(KeyStateType))
# An escaped comma can make a field's name of what stands before it.
@example(values={DOC: ",EventField.a,STUDENT:x"}, state_type=INTERNAL)
@example(values={DOC: "%2CEventField.a,STUDENT:x"}, state_type=INTERNAL)
@example(values={DOC: "%252CSTUDENT:x"}, state_type=INTERNAL)
def test_parse_key_inverts_make_key(values: dict[Field, str], state_type: KeyStateType) -> None:
    parts = parse_key(make_key("m.<locals>.f", values, state_type))
    assert parts is not None
    assert parts.state_type is state_type
    assert parts.reducer == "m.<locals>.f"
    assert parts.fields == {field.name: value for field, value in values.items()}


@given(one=VALUES, other=VALUES)
@example(one={DOC: "D,EventField.tab_id:T"}, other={DOC: "D", TAB: "T"})
@example(one={DOC: "D%2CSTUDENT:T"}, other={DOC: "D,STUDENT:T"})
@example(one={DOC: "D%252CSTUDENT:T"}, other={DOC: "D%2CSTUDENT:T"})
def test_different_values_have_different_keys(
    one: dict[Field, str], other: dict[Field, str]
) -> None:
    assume(one != other)
    assert make_key("m.f", one, INTERNAL) != make_key("m.f", other, INTERNAL)


FORGING = re.compile(r"(?:,|%(?:25)*2C)(?:STUDENT:|CLASS:|RESOURCE:|TEACHER:|EventField\.)")


@given(value=HOSTILE)
def test_text_that_cannot_start_a_field_is_not_escaped(value: str) -> None:
    assume(not FORGING.search(value))
    assert make_key("m.f", {DOC: value}, INTERNAL) == f"Internal,m.f,EventField.doc_id:{value}"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "Internal",
        "internal,m.f",
        "NLP_CACHE_17",
        "email-studentID-mapping:a@b",
        "a,b,STUDENT:S",
    ],
)
def test_keys_of_other_programs_are_not_parsed(key: str) -> None:
    assert parse_key(key) is None


def test_a_million_hostile_characters_are_escaped_quickly() -> None:
    value = ",EventField." * 40_000 + "%25" * 100_000 + ",STUDENT:S" * 20_000
    key = make_key("m.f", {DOC: value}, INTERNAL)
    parts = parse_key(key)  # a pattern that backtracks would be at it for minutes
    assert parts is not None
    assert parts.fields == {"EventField.doc_id": value}
