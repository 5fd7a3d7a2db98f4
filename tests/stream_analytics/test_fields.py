"""Fields and scopes: what keys are made of."""

from __future__ import annotations

from typing import Any

import pytest

from lo_kvs.stream_analytics import fields, helpers
from lo_kvs.stream_analytics.fields import (
    EventField,
    KeyField,
    KeyStateType,
    Scope,
    ScopeFieldError,
)


def test_field_names_as_written_in_keys() -> None:
    assert [field.name for field in KeyField] == ["STUDENT", "CLASS", "RESOURCE", "TEACHER"]
    assert EventField("doc_id").name == "EventField.doc_id"
    assert KeyStateType.INTERNAL.value == "Internal"
    assert KeyStateType.EXTERNAL.value == "External"


def test_event_fields_with_the_same_name_are_equal() -> None:
    assert EventField("doc_id") == EventField("doc_id")
    assert EventField("doc_id") != EventField("tab_id")
    assert len({EventField("doc_id"), EventField("doc_id")}) == 1


def test_scope_is_an_unordered_frozenset() -> None:
    scope = Scope([KeyField.STUDENT, EventField("doc_id")])
    assert isinstance(scope, frozenset)
    assert scope == Scope([EventField("doc_id"), KeyField.STUDENT])
    assert hash(scope) == hash(Scope([EventField("doc_id"), KeyField.STUDENT]))
    assert EventField("doc_id") in scope


@pytest.mark.parametrize("name", ["", "a,b", "a:b", None, 1])
def test_event_field_with_an_invalid_name_is_rejected(name: Any) -> None:
    with pytest.raises(ScopeFieldError, match="EventField needs a name"):
        EventField(name)


@pytest.mark.parametrize("name", ["KeyStateType", "KeyField", "EventField", "Scope"])
def test_helpers_reexports_what_modules_import_from_it(name: str) -> None:
    assert getattr(helpers, name) is getattr(fields, name)
