"""Wheel, sdist and editable install, each in a fresh environment and used from another folder."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from tests.packaging.environments import (
    PROJECT,
    Installed,
    environment,
    report_of,
    run,
    the_only,
)

SCRIPTS = sorted(path.name for path in (PROJECT / "lua").glob("*.lua"))
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "build", "dist", "docs", "*.egg-info", "__pycache__", "*.so", "*.c"
)

VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]

# The tests of what is compiled where there is a compiler.
COMPILED_ELSEWHERE = (
    "tests/kvs/codec",
    "tests/kvs/redis/test_lua.py",
    "tests/kvs/redis/test_packing.py",
    "tests/stream_analytics",
)

# What a program far from the checkout finds; printed as JSON.
REPORT = """
    import json
    from importlib import resources, util
    import lo_kvs
    from lo_kvs.kvs import codec
    inside = resources.files("lo_kvs")
    facade = util.find_spec("learning_observer")
    if facade is not None:
        from learning_observer.kvs import KVS
        assert KVS is lo_kvs.KVS
    print(json.dumps({
        "where": lo_kvs.__file__,
        "version": lo_kvs.__version__,
        "facade": facade is not None,
        "codec": codec.IMPLEMENTATION,
        "sum": codec.decode(codec.encode({"one": [1, 2.5, None, "\\u00e9"]})),
        "typed": inside.joinpath("py.typed").is_file(),
        "scripts": sorted(
            entry.name
            for entry in resources.files("lo_kvs.lua").iterdir()
            if entry.name.endswith(".lua") and entry.read_text("utf-8")
        ),
    }))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources as they come from version control: nothing built in it."""
    copy = tmp_path / "checkout"
    shutil.copytree(PROJECT, copy, ignore=NOT_SOURCE)
    return copy


def test_wheel_holds_what_runs_and_no_source_of_the_compiler(distributions: Path) -> None:
    with zipfile.ZipFile(the_only(distributions, "lo_kvs-*.whl")) as wheel:
        names = wheel.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "lo-kvs = lo_kvs.cli:app" in wheel.read(entry_points).decode()
    assert SCRIPTS
    assert sorted(Path(name).name for name in names if name.endswith(".lua")) == SCRIPTS
    assert "lo_kvs/py.typed" in names
    assert "lo_kvs/lua/__init__.py" in names
    assert "lo_kvs/kvs/codec/_c.pyi" in names
    assert any(name.startswith("lo_kvs/kvs/codec/_c.cpython") for name in names)
    assert not [name for name in names if name.endswith((".c", ".pyx", ".pxd"))]
    assert {name.split("/")[0] for name in names} == {
        "lo_kvs",
        names[-1].split("/")[0],  # RECORD is the last one, in .dist-info
    }


def test_wheel_of_the_facade_holds_its_modules_alone(distributions: Path) -> None:
    with zipfile.ZipFile(the_only(distributions, "learning_observer_kvs-*-py3-*.whl")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    source = PROJECT / "src"
    assert names == {
        path.relative_to(source).as_posix()
        for path in source.glob("learning_observer/**/*")
        if path.name == "py.typed" or path.suffix == ".py"
    }
    assert "learning_observer/py.typed" in names


def test_sdist_holds_the_source_and_nothing_generated(distributions: Path) -> None:
    with tarfile.open(the_only(distributions, "lo_kvs-*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"lua/{script}" for script in SCRIPTS} <= names
    assert {
        "LICENSE",
        "Makefile",
        "README.md",
        "pyproject.toml",
        "setup.py",
        "src/lo_kvs/py.typed",
        "src/lo_kvs/kvs/codec/_c.pyx",
        "src/lo_kvs/kvs/codec/_c.pyi",
        "tests/conftest.py",
        "tools/install.py",
    } <= names
    assert not [name for name in names if name.endswith((".c", ".so", ".pyc"))]
    assert not [name for name in names if name.startswith("src/learning_observer")]


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_installed_package_works_from_another_folder(
    kind: str, distributions: Path, checkout: Path, tmp_path: Path
) -> None:
    installed = Installed(tmp_path / "environment")
    compiled = environment(LOKVS_REQUIRE_EXTENSION="1")
    if kind == "editable":
        installed.install("--editable", checkout, env=compiled)
    else:
        pattern = {"wheel": "lo_kvs-*.whl", "sdist": "lo_kvs-*.tar.gz"}[kind]
        installed.install(the_only(distributions, pattern), env=compiled)
    report = report_of(installed, REPORT)
    home = checkout if kind == "editable" else installed.folder
    assert Path(str(report.pop("where"))).is_relative_to(home)
    assert report.pop("codec") != "pure"
    assert report == {
        "version": VERSION,
        "facade": kind == "editable",
        "sum": {"one": [1, 2.5, None, "é"]},
        "typed": True,
        "scripts": SCRIPTS,
    }
    command = installed.folder / "bin" / "lo-kvs"
    assert "ingest" in run(command, "--help", cwd=installed.elsewhere)
    shown = run(command, "demo", "--students", "2", "--events", "200", cwd=installed.elsewhere)
    assert "sim-student-001" in shown
    assert list((installed.elsewhere / ".lo_kvs").glob("*.json"))


@pytest.fixture(scope="module")
def pure(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An install of a machine without a compiler, and `checkout` beside its environment."""
    folder = tmp_path_factory.mktemp("pure")
    shutil.copytree(PROJECT, folder / "checkout", ignore=NOT_SOURCE)
    installed = Installed(folder / "environment")
    installed.install(folder / "checkout", env=environment(CC="false"))
    return installed


def test_without_a_compiler_it_installs_in_pure_python(pure: Installed) -> None:
    assert "no module is compiled for this Python" in pure.python_says("import lo_kvs.kvs")
    report = report_of(pure, REPORT)
    assert report["codec"] == "pure"
    assert report["sum"] == {"one": [1, 2.5, None, "é"]}
    assert report["facade"]
    assert not list(pure.library.rglob("lo_kvs/**/*.so"))
    command = subprocess.run(
        [pure.folder / "bin" / "lo-kvs", "check", "--json"],
        cwd=pure.elsewhere,
        env=environment(),
        stdout=subprocess.PIPE,
        check=False,
    )
    told = json.loads(command.stdout)
    assert (told["codec"], told["engine"], told["exit_code"]) == ("pure", "pure", 1)


def test_in_pure_python_it_does_the_same(pure: Installed) -> None:
    """Where there is a compiler the engine runs compiled, so its other form is tried here."""
    checkout = pure.folder.parent / "checkout"
    shutil.rmtree(checkout / "src")  # what is tried is what was installed
    quietly = ["-q", "-p", "no:cacheprovider"]
    long_and_pure_everywhere = "--ignore=tests/kvs/codec/test_law.py"
    options = [*quietly, long_and_pure_everywhere, *COMPILED_ELSEWHERE]
    said = run(pure.python, "-m", "pytest", *options, cwd=checkout)
    assert re.search(r"^\d{3,} passed in", said, re.MULTILINE), said


def test_without_a_compiler_it_fails_where_the_extension_is_required(
    checkout: Path, tmp_path: Path
) -> None:
    installed = Installed(tmp_path / "environment")
    required = environment(CC="false", LOKVS_REQUIRE_EXTENSION="1")
    with pytest.raises(pytest.fail.Exception, match="_c"):
        installed.install(checkout, env=required)
