"""`make_key_from_json`: the keys that browsers ask for."""

from __future__ import annotations

from typing import Any

import pytest

from learning_observer.stream_analytics.fields import ScopeFieldError
from learning_observer.stream_analytics.helpers import make_key_from_json


@pytest.mark.parametrize(
    ("js", "key"),
    [
        ({"source": "m.f"}, "Internal,m.f"),
        (
            {"source": "m.f", "KeyField.STUDENT": "S", "EventField.doc_id": "D"},
            "Internal,m.f,EventField.doc_id:D,STUDENT:S",
        ),
        (
            {"source": "m.f", "KeyField.CLASS": "C", "state_type": "External"},
            "External,m.f,CLASS:C",
        ),
        ({"source": "m.C.<locals>.f", "KeyField.STUDENT": 7}, "Internal,m.C.<locals>.f,STUDENT:7"),
        ({"source": "m.f", "KeyField.STUDENT": 1.5}, "Internal,m.f,STUDENT:1.5"),
        ({"source": "m.f", "KeyField.STUDENT": ""}, "Internal,m.f,STUDENT:"),
        (
            {"source": "m.f", "EventField.doc_id": "D,STUDENT:S"},
            "Internal,m.f,EventField.doc_id:D%2CSTUDENT:S",
        ),
    ],
)
def test_key_that_is_asked_for(js: dict[str, Any], key: str) -> None:
    asked = dict(js)
    assert make_key_from_json(js) == key
    assert js == asked  # the caller's object is left alone


@pytest.mark.parametrize(
    ("js", "why"),
    [
        ({}, "`source` must name a reducer"),
        ({"source": ""}, "`source` must name a reducer"),
        ({"source": None}, "`source` must name a reducer"),
        ({"source": ["m.f"]}, "`source` must name a reducer"),
        ({"source": "m.f,STUDENT:S"}, "`source` must name a reducer"),
        ({"source": "m.f", "state_type": "internal"}, "`state_type` must be"),
        ({"source": "m.f", "state_type": None}, "`state_type` must be"),
        ({"source": "m.f", "state_type": ["Internal"]}, "`state_type` must be"),
        ({"source": "m.f", "STUDENT": "S"}, "'STUDENT' is no field; known are KeyField.STUDENT"),
        ({"source": "m.f", "KeyField.STUDENTS": "S"}, "'KeyField.STUDENTS' is no field"),
        ({"source": "m.f", "KeyField.__class__": "S"}, "is no field"),
        ({"source": "m.f", "keyfield.STUDENT": "S"}, "is no field"),
        ({"source": "m.f", "EventField.": "S"}, "an EventField needs a name"),
        ({"source": "m.f", "EventField.a,b": "S"}, "an EventField needs a name"),
        ({"source": "m.f", "KeyField.STUDENT": None}, "KeyField.STUDENT: expected text"),
        ({"source": "m.f", "KeyField.STUDENT": True}, "KeyField.STUDENT: expected text"),
        ({"source": "m.f", "KeyField.STUDENT": {"a": 1}}, "KeyField.STUDENT: expected text"),
        ({"source": "m.f", "EventField.doc_id": ["D"]}, "EventField.doc_id: expected text"),
    ],
)
def test_what_no_key_can_be_made_of_is_refused(js: dict[str, Any], why: str) -> None:
    with pytest.raises(ScopeFieldError) as raised:
        make_key_from_json(js)
    assert why in str(raised.value)


@pytest.mark.parametrize("js", [None, "m.f", ["source"], 7])
def test_what_is_no_object_is_refused(js: Any) -> None:
    with pytest.raises(ScopeFieldError, match="expected an object"):
        make_key_from_json(js)
