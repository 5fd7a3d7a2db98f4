"""Our modules in somebody else's tree: they take only what they may from the rest of it."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from tests.compat.support import run_program

import learning_observer

#: The modules that are swapped, as docs/differences.md tells; redis_*.py are several.
OURS = ("kvs", "stream_analytics", "lua", "settings_packages", "settings_paths", "settings_shown")
SOURCE = Path(learning_observer.__file__).parent

# The least that the names say: registering returns nothing, settings come by another way.
FOREIGN = {
    "__init__.py": "",
    "settings.py": "settings = None\n",
    "prestartup.py": """
class StartupCheck(Exception):
    pass

STARTUP_CHECKS = []

def register_startup_check(check):
    STARTUP_CHECKS.append(check)
""",
}

PROGRAM = """
import asyncio, json, sys

import learning_observer.prestartup
import learning_observer.settings
from learning_observer.kvs import KVS, kvs_startup_check
from learning_observer import kvs, redis_connection
from learning_observer.stream_analytics import fields, keys, pipeline, query
from learning_observer.stream_analytics.helpers import student_event_reducer

assert learning_observer.__file__.startswith(sys.argv[1]), learning_observer.__file__
assert kvs.__file__.startswith(sys.argv[1])

@student_event_reducer(null_state={"count": 0})
async def count(event, state):
    state["count"] += 1
    return state, state

async def main():
    await redis_connection.connect()
    await redis_connection.set("plain", "1")
    assert await redis_connection.get("plain") == b"1"
    await (await redis_connection.connection()).aclose()
    process = await count({"auth": {"safe_user_id": "s1"}})
    for name in ("first", "second", "third"):
        KVS.add_item("default", getattr(KVS, name))
        for _ in range(2):
            external = await process({"client": {"event": "save"}}, {})
        assert external == {"count": 2}, external
    found = [sorted((await getattr(KVS, name)().dump()).items()) for name in KVS.names()]
    await KVS.aclose()
    return found

learning_observer.settings.settings = {
    "kvs": {
        "default": {"type": "stub"},
        "first": {"type": "stub"},
        "second": {"type": "filesystem", "path": sys.argv[1] + "/files"},
        "third": {"type": "redis", "prefix": "third:"},
    },
    "redis_connection": {"redis_host": "127.0.0.1", "redis_port": int(sys.argv[2])},
}
for check in learning_observer.prestartup.STARTUP_CHECKS:
    check()
kvs_startup_check()
learning_observer.settings.settings["kvs"]["default"] = {"type": "no such type"}
try:
    kvs_startup_check()
except learning_observer.prestartup.StartupCheck as error:
    assert "no such type" in str(error)
else:
    raise AssertionError("a wrong type passed")
print(json.dumps(asyncio.run(main())))
"""


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    package = tmp_path / "tree" / "learning_observer"
    package.mkdir(parents=True)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("kvs", "stream_analytics"):
        shutil.copytree(SOURCE / name, package / name, ignore=ignore)
    shutil.copytree(str(files("learning_observer.lua")), package / "lua", ignore=ignore)
    for path in [*SOURCE.glob("redis_*.py"), *(SOURCE / f"{name}.py" for name in OURS)]:
        if path.exists():
            shutil.copy(path, package)
    for name, text in FOREIGN.items():
        (package / name).write_text(text)
    return package.parent


def test_our_modules_run_in_another_tree(foreign: Path, redis_url: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    port = redis_url.rpartition(":")[2].partition("/")[0]
    found = run_program(program, str(foreign), port, path=foreign)
    states = [
        ["External,__main__.count,STUDENT:s1", {"count": 2}],
        ["Internal,__main__.count,STUDENT:s1", {"count": 2}],
    ]
    assert found.count(states) >= 3


def test_our_modules_import_nothing_else_of_the_package() -> None:
    sources = list(SOURCE.glob("redis_*.py"))
    for name in ("kvs", "stream_analytics"):
        sources += (SOURCE / name).rglob("*.py")
    taken = {name for file in sources for name in imported(ast.parse(file.read_bytes()))}
    assert {name for name in taken if not is_ours(name.split(".")[1])} == {
        "learning_observer.settings",
        "learning_observer.prestartup.StartupCheck",
        "learning_observer.prestartup.register_startup_check",
    }


def is_ours(module: str) -> bool:
    return module in OURS or module.startswith("redis_")


def imported(tree: ast.Module) -> Iterator[str]:
    """The full names of what is imported from the package, anywhere in the module."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name for name in names if name.startswith("learning_observer."))
