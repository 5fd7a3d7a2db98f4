"""Builds both distributions from this tree, with one version: `python tools/release.py dist`.

    lo-kvs                 the package lo_kvs, with what is compiled and the Lua scripts
    learning-observer-kvs  the package learning_observer, which has only names for lo_kvs

Each is built from a copy that holds only its own files, so no file is in both: the wheel from
the sdist, the sdist from the copy. `pip install .` installs both packages from this tree.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FACADE: Final = "src/learning_observer"

#: What the sdist of lo-kvs may take its files from; MANIFEST.in says which.
OF_LO_KVS: Final = (
    *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md"),
    *("pyproject.toml", "setup.py", "src", "lua", "tools", "tests", "docs", "benchmarks"),
)
#: What lo-kvs leaves out: the other package, and the tests that need it.
NOT_OF_LO_KVS: Final = (
    *(FACADE, "tools/facade"),
    *("tests/compat", "tests/packaging", "tests/test_docs.py"),
)
GENERATED: Final = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "*.egg-info")


def version() -> str:
    """The version of both distributions."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])


def stage_lo_kvs(tree: Path) -> None:
    """Copy to `tree` what lo-kvs is built from."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        inside = Path(folder).relative_to(ROOT)
        ours = {name for name in names if (inside / name).as_posix() in NOT_OF_LO_KVS}
        return ours | GENERATED(folder, names)

    tree.mkdir()
    for name in OF_LO_KVS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=left_out)
        else:
            shutil.copy2(source, tree)


def stage_facade(tree: Path) -> None:
    """Copy to `tree` what learning-observer-kvs is built from."""
    shutil.copytree(ROOT / FACADE, tree / FACADE, ignore=GENERATED)
    settings = (ROOT / "tools/facade/pyproject.toml.in").read_text("utf-8")
    (tree / "pyproject.toml").write_text(settings.replace("@VERSION@", version()), "utf-8")
    shutil.copy2(ROOT / "tools/facade/README.md", tree)
    shutil.copy2(ROOT / "LICENSE", tree)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the sdist and the wheel of both distributions into one folder."""
    parser = argparse.ArgumentParser(description="Build both distributions from this tree.")
    parser.add_argument("folder", type=Path, help="where the four files go")
    parser.add_argument(
        "--no-isolation", action="store_true", help="use the installed build tools, fetch none"
    )
    options = parser.parse_args(arguments)
    if not (ROOT / FACADE).is_dir():
        parser.error(f"{ROOT} has no {FACADE}: build from the repository, not from an sdist")
    build = [sys.executable, "-m", "build", "--outdir", str(options.folder.resolve())]
    if options.no_isolation:
        build.append("--no-isolation")
    with tempfile.TemporaryDirectory(prefix="lo-kvs-release-") as folder:
        for name, stage in (("lo-kvs", stage_lo_kvs), ("learning-observer-kvs", stage_facade)):
            stage(Path(folder, name))
            done = subprocess.run([*build, str(Path(folder, name))], check=False)
            if done.returncode:
                print(f"{name} {version()}: not built, see above", file=sys.stderr)
                return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
