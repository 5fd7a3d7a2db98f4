"""Compiled and pure: the same results, all or none of it, and of the sources beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

import lo_kvs
from lo_kvs import compiled

PACKAGE = Path(str(lo_kvs.__file__)).parent
PROGRAM = Path(__file__).with_name("event_runs.py")
#: Seeds of the runs that are compared. LOKVS_SEED=n begins elsewhere.
FIRST_SEED = int(os.environ.get("LOKVS_SEED", "0"))
SEEDS = range(FIRST_SEED, FIRST_SEED + 200)


def extension_files(folder: Path = PACKAGE) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(EXTENSION_SUFFIXES[0])]


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in compiled.SWITCHES}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={"PYTHONPATH": os.pathsep.join(sys.path), **kept, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def runs(seeds: range, **environment: str) -> tuple[list[Any], str]:
    """The results of `seeds`, and in which form they were made."""
    done = python(PROGRAM, seeds.start, seeds.stop, **environment)
    assert done.returncode == 0, done.stderr
    *results, form = map(json.loads, done.stdout.splitlines())
    return results, form


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package, as it is installed here."""
    folder = tmp_path_factory.mktemp("copy")
    without = shutil.ignore_patterns("__pycache__", "*.c")
    shutil.copytree(PACKAGE, folder / "lo_kvs", ignore=without)
    spec = importlib.util.find_spec("lo_kvs.lua")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    scripts = Path(next(iter(spec.submodule_search_locations)))
    shutil.copytree(scripts, folder / "lo_kvs" / "lua", ignore=without, dirs_exist_ok=True)
    return folder


def test_no_module_is_older_than_its_source() -> None:
    """Else the tests would try what was: Python takes the compiled module where there is one."""
    stale = [
        str(source.relative_to(PACKAGE))
        for path in extension_files()
        for suffix in (".py", ".pyx", ".pxd")
        if (
            source := path.with_name(path.name.removesuffix(EXTENSION_SUFFIXES[0]) + suffix)
        ).exists()
        and source.stat().st_mtime > path.stat().st_mtime
    ]
    assert not stale, f"`make test` builds them anew: {', '.join(stale)}"


def test_the_list_of_compiled_modules_is_complete() -> None:
    """A `.pyx` is compiled, and so is a `.py` with a `.pxd` beside it."""
    typed = {path.with_suffix(".py") for path in PACKAGE.rglob("*.pxd")}
    sources = {*PACKAGE.rglob("*.pyx"), *filter(Path.exists, typed)}
    names = {
        ".".join(("lo_kvs", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in sources
    }
    assert set(compiled.MODULES) == names


def test_compiled_and_pure_agree_on_runs_of_events() -> None:
    """Reducers that raise, decline, wait, keep and change what they returned; odd values."""
    usual, usual_form = runs(SEEDS)
    pure, pure_form = runs(SEEDS, LOKVS_PURE="1")
    assert pure_form == "pure"
    assert usual_form == ("compiled" if extension_files() else "pure")
    different = [one["seed"] for one, other in zip(usual, pure, strict=True) if one != other]
    assert not different, f"LOKVS_SEED=n repeats: {different}"
    for one, other in zip(usual, pure, strict=True):
        assert one == other  # shows where


def test_a_missing_extension_means_pure_python_everywhere(copy: Path) -> None:
    """For each of them: the same results, one warning that names it, and nothing compiled."""
    expected, _ = runs(range(3))
    done = python(PROGRAM, "--each", copy, PYTHONPATH=str(copy))
    assert done.returncode == 0, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(extension_files())
    for report in reports:
        name = report["without"].partition(".")[0]
        assert report["form"] == "pure", name
        (warning,) = report["warnings"]
        assert f".{name})" in warning
        assert report["results"] == expected, name


@pytest.mark.parametrize("content", [b"", b"no library", None], ids=["empty", "text", "other"])
def test_an_extension_that_cannot_be_loaded_means_the_same(
    copy: Path, tmp_path: Path, content: bytes | None
) -> None:
    if not extension_files():
        return  # nothing is built here, so nothing can be broken
    folder = tmp_path / "copy"
    shutil.copytree(copy, folder)
    (broken,) = (path for path in extension_files(folder) if path.name.startswith("wakeups."))
    if content is None:  # a library that is no such module
        content = broken.read_bytes().replace(b"PyInit_wakeups", b"PyInit_another")
    broken.write_bytes(content)
    done = python(PROGRAM, 0, 1, PYTHONPATH=str(folder))
    assert done.returncode == 0, done.stderr
    result, form = map(json.loads, done.stdout.splitlines())
    assert form == "pure"
    assert [result] == runs(range(1))[0]
    (warning,) = done.stderr.splitlines()
    assert "engine.wakeups cannot be loaded: " in warning


@pytest.mark.parametrize("switch", compiled.SWITCHES)
def test_pure_python_that_is_asked_for_is_no_warning(switch: str) -> None:
    done = python(PROGRAM, 0, 1, **{switch: "1"})
    assert done.stdout.splitlines()[-1] == '"pure"'
    assert done.stderr == ""


def test_importing_the_package_decides_nothing() -> None:
    """`lo-kvs --help` loads no library and warns of nothing."""
    program = "import lo_kvs.compiled; print(lo_kvs.compiled._choice.cache_info().currsize)"
    assert python("-c", program).stdout == "0\n"
