"""Wheel, sdist and editable install, each in a fresh environment and used from another folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SCRIPTS = sorted(path.name for path in (PROJECT / "lua").glob("*.lua"))
NOT_SOURCE = shutil.ignore_patterns(
    ".*", "build", "dist", "docs", "*.egg-info", "__pycache__", "*.so", "*.c"
)

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
    from importlib import metadata, resources
    import learning_observer
    from lo_kvs.kvs import codec
    inside = resources.files("learning_observer")
    print(json.dumps({
        "where": learning_observer.__file__,
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


def environment(**changes: str) -> dict[str, str]:
    """Our own environment without what points into the checkout or asks for what is compiled."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name
        not in {"PYTHONPATH", "LOKVS_PURE", "LOKVS_PURE_CODEC", "LOKVS_REQUIRE_EXTENSION", "CI"}
    }
    return {**kept, "CFLAGS": "-O0", **changes}


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment() if env is None else env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,  # what is defective may hang
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


class Installed:
    """A fresh environment with the package in it, and our own environment's dependencies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.elsewhere = folder / "elsewhere"
        venv.create(folder, symlinks=True, with_pip=False)
        self.elsewhere.mkdir()
        # A path in a .pth file comes after the environment's own packages, and the .pth files
        # that lie *there* (such as that of the editable checkout) are not read.
        library = self.python_says("import sysconfig; print(sysconfig.get_path('purelib'))")
        Path(library, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def python_says(self, program: str) -> str:
        return run(self.python, "-c", textwrap.dedent(program), cwd=self.elsewhere).strip()

    def install(self, *what: str | Path, env: Mapping[str, str] | None = None) -> None:
        pip: list[str | Path] = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            self.python,
            "install",
            "--quiet",
        ]
        offline = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
        run(*pip, *offline, *what, cwd=self.elsewhere, env=env)

    def report(self) -> dict[str, object]:
        report: dict[str, object] = json.loads(self.python_says(REPORT))
        return report


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources as they come from version control: nothing built in it."""
    copy = tmp_path / "checkout"
    shutil.copytree(PROJECT, copy, ignore=NOT_SOURCE)
    return copy


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist, and with the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("distributions")
    shutil.copytree(PROJECT, folder / "checkout", ignore=NOT_SOURCE)
    build: list[str | Path] = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder]
    run(*build, folder / "checkout", cwd=folder, env=environment(LOKVS_REQUIRE_EXTENSION="1"))
    return folder


def the_only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_wheel_holds_what_runs_and_no_source_of_the_compiler(distributions: Path) -> None:
    with zipfile.ZipFile(the_only(distributions, "*.whl")) as wheel:
        names = wheel.namelist()
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "lo-kvs = lo_kvs.cli:app" in wheel.read(entry_points).decode()
    assert SCRIPTS
    assert sorted(Path(name).name for name in names if name.endswith(".lua")) == SCRIPTS
    assert "learning_observer/py.typed" in names
    assert "lo_kvs/lua/__init__.py" in names
    assert "lo_kvs/kvs/codec/_c.pyi" in names
    assert any(name.startswith("lo_kvs/kvs/codec/_c.cpython") for name in names)
    assert not [name for name in names if name.endswith((".c", ".pyx", ".pxd"))]
    assert {name.split("/")[0] for name in names} == {
        "learning_observer",
        names[-1].split("/")[0],  # RECORD is the last one, in .dist-info
    }


def test_sdist_holds_the_source_and_nothing_generated(distributions: Path) -> None:
    with tarfile.open(the_only(distributions, "*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {f"lua/{script}" for script in SCRIPTS} <= names
    assert {
        "LICENSE",
        "Makefile",
        "README.md",
        "pyproject.toml",
        "setup.py",
        "src/learning_observer/py.typed",
        "src/lo_kvs/kvs/codec/_c.pyx",
        "src/lo_kvs/kvs/codec/_c.pyi",
        "tests/conftest.py",
    } <= names
    assert not [name for name in names if name.endswith((".c", ".so", ".pyc"))]


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_installed_package_works_from_another_folder(
    kind: str, distributions: Path, checkout: Path, tmp_path: Path
) -> None:
    installed = Installed(tmp_path / "environment")
    compiled = environment(LOKVS_REQUIRE_EXTENSION="1")
    if kind == "editable":
        installed.install("--editable", checkout, env=compiled)
    else:
        pattern = {"wheel": "*.whl", "sdist": "*.tar.gz"}[kind]
        installed.install(the_only(distributions, pattern), env=compiled)
    report = installed.report()
    home = checkout if kind == "editable" else installed.folder
    assert Path(str(report.pop("where"))).is_relative_to(home)
    assert report.pop("codec") != "pure"
    assert report == {
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
    report = pure.report()
    assert report["codec"] == "pure"
    assert report["sum"] == {"one": [1, 2.5, None, "é"]}
    assert not list(pure.folder.rglob("learning_observer/**/*.so"))
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
