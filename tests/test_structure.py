"""The structure of the package: what may import what, and how much a folder holds.

The units of a folder are its modules and its subfolders, and its `__init__` where that defines or
collects names. A module and its compiled form (`packing.py`, `_packing.pyx`) are one unit. Inside
a folder the units import one another without a cycle, so they stand on levels: a unit imports
from lower levels only. Every import counts, also those inside functions and under TYPE_CHECKING,
and those of `.pyx` and `.pxd` files.

    python -m tests.test_structure      prints the levels of every folder
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

import lo_kvs

PACKAGE: Final = Path(str(lo_kvs.__file__)).parent
FOLDERS: Final = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
FILES_MAX: Final = 15
#: Edges that do not count, with the reason.
EXCEPTIONS: Final[dict[tuple[str, str], str]] = {
    ("lo_kvs.redis_connection.validation", "lo_kvs.redis_connection.settings"): (
        "the type alone, under TYPE_CHECKING: `settings` passes itself to `validation`, which "
        "reads its fields"
    ),
}
#: What moves bytes to and from a network, or waits for that. Their exceptions are allowed.
IO_MODULES: Final = ("asyncio", "redis.asyncio", "redis.cluster", "selectors", "socket", "ssl")

_CYTHON_IMPORT = re.compile(r"^\s*from\s+([\w.]+)\s+c?import\s+\(?([\w ,]+)", re.MULTILINE)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("lo_kvs", *(part for part in parts if part != "__init__")))


def exists(name: str) -> bool:
    """Whether it is a module of ours, and no name in one."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.is_dir() or any(path.with_suffix(each).exists() for each in (".py", ".pyx"))


def imports(path: Path, keep: Sequence[str] = ()) -> Iterator[str]:
    """The modules that a file imports, each as `package.module`.

    What is imported from the modules `keep` is named in full.
    """
    text = path.read_text("utf-8")
    pairs: list[tuple[str, str]] = []
    if path.suffix in {".pyx", ".pxd"}:
        for module, names in _CYTHON_IMPORT.findall(text):
            pairs += [(module, name.split()[0]) for name in names.split(",") if name.strip()]
    else:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                pairs += [(name.name, "") for name in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path}: a relative import"
                pairs += [(str(node.module), name.name) for name in node.names]
    for module, name in pairs:
        ours = module.partition(".")[0] == "lo_kvs"
        inside = (ours and exists(f"{module}.{name}")) or module.startswith(tuple(keep))
        yield f"{module}.{name}" if name and inside else module


def sources(folder: Path = PACKAGE) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix in {".py", ".pyx", ".pxd"}]


def unit_of(name: str, folder: Path) -> str:
    """A compiled form `_name` belongs to the module `name`, which chooses between both."""
    plain = name.removeprefix("_")
    return plain if (folder / f"{plain}.py").exists() else name


def edges_of(folder: Path) -> dict[str, dict[str, set[str]]]:
    """For each unit of a folder: the units that it imports, each with the files that do."""
    base = module_name(folder / "__init__.py")
    found: dict[str, dict[str, set[str]]] = {}
    for path in sources(folder):
        unit = unit_of(path.relative_to(folder).parts[0].partition(".")[0], folder)
        edges = found.setdefault(unit, defaultdict(set))
        for name in imports(path):
            if name != base and not name.startswith(f"{base}."):
                continue
            other = name.removeprefix(base).lstrip(".").partition(".")[0] or "__init__"
            other = unit_of(other, folder)
            if other != unit and (f"{base}.{unit}", f"{base}.{other}") not in EXCEPTIONS:
                edges[other].add(str(path.relative_to(PACKAGE)))
    return found


def levels_of(edges: dict[str, dict[str, set[str]]]) -> tuple[list[list[str]], list[str]]:
    """The units on levels, from the lowest up; and those that are in a cycle or above one."""
    levels: list[list[str]] = []
    left = set(edges)
    while left:
        level = sorted(unit for unit in left if not edges[unit].keys() & left)
        if not level:
            break
        levels.append(level)
        left -= set(level)
    # Those that nothing in the cycle needs are above it.
    while above := {unit for unit in left if not any(unit in edges[other] for other in left)}:
        left -= above
    return levels, sorted(left)


def table(folder: Path) -> str:
    """The levels of a folder, the highest first, as an error message."""
    edges = edges_of(folder)
    levels, cycle = levels_of(edges)
    lines = [f"{module_name(folder / '__init__.py')}:"]
    for unit in cycle:
        for other, files in sorted(edges[unit].items()):
            if other in cycle:
                lines.append(f"  cycle    {unit} -> {other}  ({', '.join(sorted(files))})")
    lines += [
        f"  level {number}  {' '.join(level)}"
        for number, level in reversed(list(enumerate(levels, 1)))
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: module_name(path / "__init__.py"))
class TestFolder:
    def test_imports_point_downwards(self, folder: Path) -> None:
        if levels_of(edges_of(folder))[1]:
            pytest.fail(f"units import one another in a cycle:\n{table(folder)}", pytrace=False)

    def test_it_is_not_too_large_to_read(self, folder: Path) -> None:
        names = {
            path.stem
            for path in folder.iterdir()
            if path.suffix in {".py", ".pyx", ".lua"} and path.stem != "__init__"
        }
        assert len(names) <= FILES_MAX, f"divide it into subfolders: {sorted(names)}"

    def test_its_docstring_says_what_it_holds(self, folder: Path) -> None:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
        assert len(text) > 40, f"write a sentence or two in {folder / '__init__.py'}"
        assert "TODO" not in text


def test_it_imports_nothing_of_the_learning_observer() -> None:
    """What is needed of it goes through `lo_kvs.host`, by name and at run time."""
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sources()
        for name in imports(path)
        if name.partition(".")[0] == "learning_observer"
    }
    assert not wrong


def test_the_protocol_does_no_io() -> None:
    folder = PACKAGE / "kvs" / "redis" / "protocol"
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sources(folder)
        for name in imports(path, keep=IO_MODULES)
        if any(name == each or name.startswith(f"{each}.") for each in IO_MODULES)
        and not is_exception(name)
    }
    assert not wrong


def is_exception(name: str) -> bool:
    module, _, last = name.rpartition(".")
    kind = getattr(importlib.import_module(module), last, None) if module else None
    return isinstance(kind, type) and issubclass(kind, BaseException)


def test_exceptions_are_needed() -> None:
    """An exception that hides no import is to be removed."""
    used = {(module_name(path), name) for path in sources() for name in imports(path)}
    unused = {
        (unit, other)
        for unit, other in EXCEPTIONS
        if not any((f"{a}." + f" {b}.").startswith(f"{unit}. {other}.") for a, b in used)
    }
    assert not unused


def test_a_cycle_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of this test: two modules that import each other, one inside a function."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "__init__.py").write_text("from lo_kvs.up import up\n")
    (tmp_path / "up.py").write_text("from lo_kvs import down\n")
    (tmp_path / "down.py").write_text("def f():\n    from lo_kvs.up import up\n")
    (tmp_path / "alone.py").write_text("import os\n")
    assert levels_of(edges_of(tmp_path)) == ([["alone"]], ["down", "up"])
    assert "cycle    down -> up  (down.py)" in table(tmp_path)


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(folder) for folder in FOLDERS) + "\n")
