"""The two distributions of one release: the same version, and no file in both."""

from __future__ import annotations

import re
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from importlib import util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.packaging.environments import PROJECT, the_only

MAIN: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
VERSION = MAIN["project"]["version"]
NAMES = ("lo_kvs", "learning_observer_kvs")


def release_tool() -> ModuleType:
    spec = util.spec_from_file_location("release", PROJECT / "tools/release.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as opened:
        (name,) = (name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(opened.read(name).decode())


def test_one_release_is_four_files_of_one_version(distributions: Path) -> None:
    assert release_tool().version() == VERSION
    names = {
        path.name.removesuffix(".tar.gz").partition("-cp")[0] for path in distributions.iterdir()
    }
    assert names == {
        f"lo_kvs-{VERSION}",
        f"learning_observer_kvs-{VERSION}",
        f"learning_observer_kvs-{VERSION}-py3-none-any.whl",
    }
    assert len(list(distributions.iterdir())) == 4
    for name in NAMES:
        assert metadata_of(the_only(distributions, f"{name}-*.whl"))["Version"] == VERSION


def test_no_two_released_files_own_the_same_module(distributions: Path) -> None:
    owned: list[set[str]] = []
    for name in NAMES:
        with zipfile.ZipFile(the_only(distributions, f"{name}-*.whl")) as wheel:
            owned.append(set(wheel.namelist()))
    assert not owned[0] & owned[1]
    sources: list[set[str]] = []
    for name in NAMES:
        with tarfile.open(the_only(distributions, f"{name}-*.tar.gz")) as sdist:
            inside = {each.partition("/")[2] for each in sdist.getnames()}
            sources.append({each for each in inside if each.endswith(".py")})
    assert not sources[0] & sources[1]


def test_facade_requires_the_same_version(distributions: Path) -> None:
    about = metadata_of(the_only(distributions, "learning_observer_kvs-*.whl"))
    assert about.get_all("Requires-Dist") == [f"lo-kvs=={VERSION}"]


def test_both_say_the_same_about_license_and_python(distributions: Path) -> None:
    main, facade = (metadata_of(the_only(distributions, f"{name}-*.whl")) for name in NAMES)
    for field in ("License-Expression", "License-File", "Requires-Python"):
        assert main[field] == facade[field] is not None
    text = (PROJECT / "tools/facade/pyproject.toml.in").read_text()
    needed = tomllib.loads(text)["build-system"]
    assert needed["build-backend"] == MAIN["build-system"]["build-backend"]
    assert set(needed["requires"]) <= set(MAIN["build-system"]["requires"])


def test_extras_that_messages_and_docs_name_are_there(distributions: Path) -> None:
    extras = metadata_of(the_only(distributions, "lo_kvs-*.whl")).get_all("Provides-Extra")
    files = [*PROJECT.glob("src/**/*.py"), *PROJECT.glob("docs/**/*.md"), PROJECT / "README.md"]
    text = "\n".join(path.read_text() for path in files)
    named = set(re.findall(r"lo-kvs\[(\w+)\]", text))
    assert {"bench", "pmss"} <= named
    assert named <= set(extras or ())
    assert "learning-observer-kvs[" not in text


def test_staged_trees_hold_their_own_files_alone(tmp_path: Path) -> None:
    tool = release_tool()
    tool.stage_lo_kvs(tmp_path / "main")
    tool.stage_facade(tmp_path / "facade")
    assert [path.name for path in (tmp_path / "main/src").iterdir()] == ["lo_kvs"]
    assert [path.name for path in (tmp_path / "facade/src").iterdir()] == ["learning_observer"]
    staged = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in staged if path.suffix in {".so", ".c", ".pyc"}]
    assert "@VERSION@" not in (tmp_path / "facade/pyproject.toml").read_text()


def test_a_tree_without_the_facade_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = release_tool()
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    with pytest.raises(SystemExit):
        tool.main([str(tmp_path / "dist")])
    assert "build from the repository" in capsys.readouterr().err
