"""`make_key_from_json`: the keys that browsers ask for."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lo_kvs import reducers, settings
from lo_kvs.kvs import InvalidKey
from lo_kvs.kvs.changes import check_key
from lo_kvs.prestartup import StartupCheck
from lo_kvs.stream_analytics.fields import ScopeFieldError
from lo_kvs.stream_analytics.helpers import kvs_pipeline, make_key_from_json
from lo_kvs.stream_analytics.keys import ID_BYTES_MAX, KEY_BYTES_MAX
from lo_kvs.stream_analytics.keys_from_json import SourceNotAllowed
from lo_kvs.stream_analytics.limits import limits_startup_check

STUDENT = {"KeyField.STUDENT": "s1"}


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
def test_requested_key(js: dict[str, Any], key: str) -> None:
    asked = dict(js)
    assert make_key_from_json(js, sources=["m.f", "m.C.<locals>.f"]) == key
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
        ({"source": "m.f", "STUDENT": "S"}, "unknown field 'STUDENT'; known: KeyField.STUDENT"),
        ({"source": "m.f", "KeyField.STUDENTS": "S"}, "unknown field 'KeyField.STUDENTS'"),
        ({"source": "m.f", "KeyField.__class__": "S"}, "unknown field "),
        ({"source": "m.f", "keyfield.STUDENT": "S"}, "unknown field "),
        ({"source": "m.f", "EventField.": "S"}, "an EventField needs a name"),
        ({"source": "m.f", "EventField.a,b": "S"}, "an EventField needs a name"),
        ({"source": "m.f", "KeyField.STUDENT": None}, "KeyField.STUDENT: expected text"),
        ({"source": "m.f", "KeyField.STUDENT": True}, "KeyField.STUDENT: expected text"),
        ({"source": "m.f", "KeyField.STUDENT": {"a": 1}}, "KeyField.STUDENT: expected text"),
        ({"source": "m.f", "EventField.doc_id": ["D"]}, "EventField.doc_id: expected text"),
    ],
)
def test_invalid_requests_are_rejected(js: dict[str, Any], why: str) -> None:
    with pytest.raises(ScopeFieldError) as raised:
        make_key_from_json(js, sources=["m.f"])
    assert why in str(raised.value)


@pytest.mark.parametrize("js", [None, "m.f", ["source"], 7])
def test_request_that_is_not_an_object_is_rejected(js: Any) -> None:
    with pytest.raises(ScopeFieldError, match="expected an object"):
        make_key_from_json(js)


@pytest.fixture
def block() -> Iterator[dict[str, Any]]:
    """The `reducers` block of the settings, for the time of a test."""
    before = settings.settings.pop("reducers", None)
    block: dict[str, Any] = {}
    settings.settings["reducers"] = block
    yield block
    del settings.settings["reducers"]
    if before is not None:
        settings.settings["reducers"] = before


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Writes the module loader of a Learning Observer that runs in this process."""
    running = ModuleType("learning_observer")
    running.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "learning_observer", running)

    def write(text: str) -> None:
        (tmp_path / "module_loader.py").write_text(text)

    yield write
    sys.modules.pop("learning_observer.module_loader", None)


LOADER = """
from lo_kvs.reducers import event_count
from collections import OrderedDict

def course_aggregators():
    return OrderedDict(
        dashboard={"sources": [event_count], "name": "D"}, other={"name": "no sources"}
    )
"""
COUNT = {"source": "lo_kvs.reducers.activity.event_count", **STUDENT}
COUNT_KEY = "Internal,lo_kvs.reducers.activity.event_count,STUDENT:s1"


def test_without_a_list_every_source_is_rejected(block: dict[str, Any]) -> None:
    for js in (COUNT, {"source": "m.f"}, {"source": "kept_by.another_user", **STUDENT}):
        with pytest.raises(SourceNotAllowed, match=r"`reducers.allowed_sources`"):
            make_key_from_json(js)
    settings.settings["reducers"] = None
    with pytest.raises(SourceNotAllowed, match="there is no list"):
        make_key_from_json(COUNT)
    settings.settings["reducers"] = block


def test_sources_are_reducers_or_their_names() -> None:
    js = {"source": "m.f", **STUDENT}
    with pytest.raises(SourceNotAllowed, match=r"'m\.f' is not allowed: it is not in `sources`"):
        make_key_from_json(js, sources=[])
    assert make_key_from_json(js, sources=iter(["m.g", "m.f"])) == "Internal,m.f,STUDENT:s1"
    assert make_key_from_json(COUNT, sources={reducers.event_count}) == COUNT_KEY

    @kvs_pipeline(module_override="m", qualname_override="f")
    async def named_otherwise(event: Any, state: Any) -> Any:
        return state, state

    assert make_key_from_json(js, sources=[named_otherwise]) == "Internal,m.f,STUDENT:s1"
    with pytest.raises(SourceNotAllowed):
        make_key_from_json(js, sources=[object()])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="collection"):
        make_key_from_json({"source": "m"}, sources="m.f")


@pytest.mark.parametrize("source", ["m.F", "m.f ", " m.f", "m", "m.", "m.f.g", "m.f\0", "m.f\n"])
def test_only_the_exact_name_is_allowed(source: str) -> None:
    with pytest.raises(SourceNotAllowed):
        make_key_from_json({"source": source, **STUDENT}, sources=["m.f", "m.g"])


def test_the_setting_is_the_default(block: dict[str, Any]) -> None:
    block["allowed_sources"] = ["m.f", COUNT["source"]]
    limits_startup_check()
    assert make_key_from_json(COUNT) == COUNT_KEY
    with pytest.raises(SourceNotAllowed, match=r"not in the setting `reducers.allowed_sources`"):
        make_key_from_json({"source": "m.g"})
    with pytest.raises(SourceNotAllowed):  # the argument counts alone
        make_key_from_json(COUNT, sources=["m.f"])
    block["allowed_sources"] = []
    with pytest.raises(SourceNotAllowed):
        make_key_from_json(COUNT)


@pytest.mark.parametrize("value", ["m.f", {"m.f": True}, [1], ["m.f", None], [""], 7, True])
def test_a_setting_that_is_not_a_list_of_names(block: dict[str, Any], value: object) -> None:
    block["allowed_sources"] = value
    with pytest.raises(StartupCheck, match=r"reducers.allowed_sources: expected a list"):
        limits_startup_check()
    with pytest.raises(StartupCheck, match=r"reducers.allowed_sources: expected a list"):
        make_key_from_json({"source": "m.f"})


def test_course_aggregators_of_a_learning_observer(
    block: dict[str, Any], package: Callable[[str], None]
) -> None:
    package(LOADER)
    assert make_key_from_json(COUNT) == COUNT_KEY
    with pytest.raises(SourceNotAllowed, match="sources of the course aggregators"):
        make_key_from_json({"source": "lo_kvs.reducers.activity.time_on_task"})
    block["allowed_sources"] = ["m.f"]  # the setting comes first
    with pytest.raises(SourceNotAllowed):
        make_key_from_json(COUNT)


def test_a_loader_that_allows_nothing(
    block: dict[str, Any], package: Callable[[str], None]
) -> None:
    package("")
    with pytest.raises(SourceNotAllowed, match="there is no list"):
        make_key_from_json(COUNT)


def test_a_loader_that_cannot_be_imported(
    block: dict[str, Any], package: Callable[[str], None]
) -> None:
    package("import a_module_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        make_key_from_json(COUNT)


ALONE = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "learning_observer":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from lo_kvs.stream_analytics.keys_from_json import SourceNotAllowed, make_key_from_json
try:
    make_key_from_json({"source": "m.f", "KeyField.STUDENT": "s1"})
except SourceNotAllowed as error:
    print(error)
"""


def test_without_a_learning_observer_there_is_no_list() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "'m.f' is not allowed: there is no list of allowed sources" in done.stdout


def test_a_learning_observer_that_is_not_running_has_no_say(
    block: dict[str, Any], package: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be installed beside lo_kvs; other programs do not import it."""
    package("raise RuntimeError('imported')")
    monkeypatch.delitem(sys.modules, "learning_observer")
    with pytest.raises(SourceNotAllowed, match="there is no list"):
        make_key_from_json(COUNT)
    assert "learning_observer" not in sys.modules


def deep() -> Any:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    return nested


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(int("9" * 4000) ** 2, id="a number of 8,000 digits"),
        pytest.param(-(10**4999), id="a negative number of 5,000 digits"),
        pytest.param(10**2000, id="a number of 2,001 digits"),
        pytest.param("d" * 100_000, id="100 kB"),
        pytest.param("\u20ac" * 400, id="1,200 bytes, 400 characters"),
        pytest.param("x," * 500 + ",STUDENT:" * 20, id="too long once it is escaped"),
        pytest.param(deep(), id="lists within lists"),
        pytest.param({"a": deep()}, id="nested deeply"),
        pytest.param(b"D", id="bytes"),
        pytest.param(object(), id="an object"),
        pytest.param(ModuleType("m"), id="a module"),
    ],
)
def test_hostile_values(value: Any) -> None:
    for field in ("EventField.doc_id", "KeyField.STUDENT"):
        with pytest.raises((ScopeFieldError, InvalidKey)) as raised:
            make_key_from_json({"source": "m.f", field: value}, sources=["m.f"])
        assert field.removeprefix("KeyField.") in str(raised.value) or "digits" in str(raised.value)
        assert len(str(raised.value)) < 1000
        again = pickle.loads(pickle.dumps(raised.value))
        assert str(again) == str(raised.value)


@pytest.mark.parametrize("name", ["source", "state_type"])
@pytest.mark.parametrize(
    "value",
    [10**5000, deep(), "x" * 100_000, b"m.f", object()],
    ids=["digits", "nested", "long", "bytes", "object"],
)
def test_hostile_source_and_state_type(name: str, value: Any) -> None:
    with pytest.raises(ScopeFieldError) as raised:
        make_key_from_json({"source": "m.f", name: value}, sources=["m.f"])
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    "name",
    [
        10**5000,
        ("KeyField", "STUDENT"),
        None,
        "x" * 100_000,
        "EventField." + "x" * 100_000,
        "\x1b[2J",
    ],
    ids=["digits", "pair", "none", "long", "long event field", "escapes"],
)
def test_hostile_names_of_fields(name: Any) -> None:
    with pytest.raises((ScopeFieldError, InvalidKey)) as raised:
        make_key_from_json({"source": "m.f", name: "D"}, sources=["m.f"])
    assert len(str(raised.value)) < 1000
    assert "\x1b" not in str(raised.value)


def test_many_fields() -> None:
    many = {f"EventField.f{number}": "D" for number in range(10_000)}
    with pytest.raises(InvalidKey, match=f"the key.*at most {KEY_BYTES_MAX:,}"):
        make_key_from_json({"source": "m.f", **many}, sources=["m.f"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("\0", "\0"),
        ("__lokvs:schema", "__lokvs:schema"),
        ("../../etc/passwd", "../../etc/passwd"),
        (",STUDENT:s2", "%2CSTUDENT:s2"),
        ("x" * ID_BYTES_MAX, "x" * ID_BYTES_MAX),
        (float("nan"), "nan"),
        (10**100, "1" + "0" * 100),
    ],
)
def test_unusual_values_that_are_valid_in_keys(value: Any, text: str) -> None:
    key = make_key_from_json({"source": "m.f", "EventField.doc_id": value}, sources=["m.f"])
    assert key == "Internal,m.f,EventField.doc_id:" + text
    assert check_key(key) == key
