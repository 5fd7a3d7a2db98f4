"""`import lo_kvs`: the public names, and `configure`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import lo_kvs
import lo_kvs.kvs
from lo_kvs import prestartup, settings

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", lo_kvs.__all__)
def test_public_name_is_there(name: str) -> None:
    found = getattr(lo_kvs, name)
    assert getattr(found, "__module__", "lo_kvs").startswith(("lo_kvs", "typing", "types"))


def test_names_are_sorted_and_shown_and_nothing_else_is() -> None:
    assert len(set(lo_kvs.__all__)) == len(lo_kvs.__all__)
    assert dir(lo_kvs) == sorted(lo_kvs.__all__)
    assert not [name for name in dir(lo_kvs) if name.startswith("_") and name != "__version__"]


def test_errors_of_stores_are_all_public() -> None:
    errors = {
        name
        for name in lo_kvs.kvs.__all__
        if isinstance(found := getattr(lo_kvs.kvs, name), type) and issubclass(found, Exception)
    }
    assert errors <= set(lo_kvs.__all__)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'lo_kvs' has no attribute 'KVSs'"):
        _ = lo_kvs.KVSs  # type: ignore[attr-defined]
    assert not hasattr(lo_kvs, "S")  # a letter of a name


def test_version_is_that_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert lo_kvs.__version__ == project["version"]

    def not_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", not_installed)
    with pytest.raises(AttributeError, match="not installed"):
        _ = lo_kvs.__version__


def test_import_loads_nothing_that_is_not_used() -> None:
    program = """
import sys
before = set(sys.modules)
import lo_kvs
dir(lo_kvs), lo_kvs.__version__
print(sorted(name for name in set(sys.modules) - before if name.startswith("lo_kvs")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "['lo_kvs', 'lo_kvs.compiled']\n"


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The settings, checks and stores of this process are those of before, after the test."""
    before, sources = dict(settings.settings), list(settings.sources)
    monkeypatch.setattr(prestartup, "_initializers", [])
    monkeypatch.setattr("lo_kvs.host._own", False)
    yield
    asyncio.run(lo_kvs.KVS.aclose())
    settings.settings.clear()
    settings.settings.update(before)
    settings.sources[:] = sources


def stores() -> dict[str, Any]:
    return {"default": {"type": "stub"}, "cache": {"type": "stub"}}


@pytest.mark.usefixtures("as_before")
def test_configure_with_a_mapping() -> None:
    given = {"kvs": stores()}
    lo_kvs.configure(given)
    assert type(lo_kvs.KVS()).__name__ == "InMemoryKVS"
    assert lo_kvs.KVS.names() == ["default", "cache"]
    store = lo_kvs.KVS()
    given["kvs"]["default"]["type"] = "no such type"  # a copy was made
    lo_kvs.configure(
        given, {"kvs": {"default": {"type": "stub"}, "more": {"type": "stub"}}}
    )  # one overlay needs no list
    assert lo_kvs.KVS() is store
    assert lo_kvs.KVS.names() == ["default", "cache", "more"]


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("kind", [str, Path])
def test_configure_with_a_path(kind: type[str | Path], tmp_path: Path) -> None:
    file = tmp_path / "creds.yaml"
    file.write_text(json.dumps({"kvs": stores()}))
    over = tmp_path / "over.yaml"
    over.write_text(f"kvs:\n  cache:\n    type: filesystem\n    path: {tmp_path}/cache\n")
    lo_kvs.configure(kind(file), [kind(over)])
    assert type(lo_kvs.KVS.cache()).__name__ == "FilesystemKVS"


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ({}, ["kvs"]),
        ({"kvs": {"cache": {"type": "stub"}}}, ["default"]),
        (
            {"kvs": {"default": {"type": "redsi"}}, "reducers": {"cache_byte": 1}},
            ["did you mean", "redis", "cache_byte"],
        ),
        ("no/such/creds.yaml", ["no such file"]),
        (7, ["expected a path or a mapping, got int"]),
    ],
)
def test_configure_raises_every_fault(source: Any, faults: list[str]) -> None:
    lo_kvs.configure({"kvs": stores()})
    store = lo_kvs.KVS()
    with pytest.raises(lo_kvs.StartupCheck) as raised:
        lo_kvs.configure(source)
    for fault in faults:
        assert fault in str(raised.value)
    assert lo_kvs.KVS() is store
    assert lo_kvs.KVS.names() == ["default", "cache"]


@pytest.mark.usefixtures("as_before")
def test_settings_that_cannot_be_loaded_change_nothing(tmp_path: Path) -> None:
    lo_kvs.configure({"kvs": stores()})
    (tmp_path / "creds.yaml").write_text("- a list\n")
    with pytest.raises(lo_kvs.StartupCheck, match="expected a mapping"):
        lo_kvs.configure(tmp_path / "creds.yaml")
    assert settings.settings == {"kvs": stores()}


def test_configure_is_the_one_line_that_a_new_program_needs(tmp_path: Path) -> None:
    program = """
import asyncio, lo_kvs

@lo_kvs.student_event_reducer(null_state={"count": 0})
async def event_count(event, state):
    state["count"] += 1
    return state, {"count": state["count"]}

lo_kvs.configure({"kvs": {"default": {"type": "filesystem", "path": "states"}}})

async def main():
    process = await event_count({"auth": {"safe_user_id": "s1"}})
    print(await process({"client": {"event": "save"}}))

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "{'count': 1}\n"
