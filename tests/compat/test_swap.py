"""Modules of ours in another Learning Observer's tree, with its own settings and startup checks."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.compat.support import run_program

import learning_observer

#: The files that are copied, as docs/differences.md lists them; `lo_kvs` is installed.
SWAPPED = (
    "kvs.py",
    "redis_connection.py",
    "stream_analytics/fields.py",
    "stream_analytics/helpers.py",
)
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
    "stream_analytics/__init__.py": "",
}

PROGRAM = """
import asyncio, json, sys

import learning_observer.prestartup
import learning_observer.settings
from learning_observer.kvs import KVS, kvs_startup_check
from learning_observer import kvs, redis_connection
from learning_observer.stream_analytics import fields, helpers
from learning_observer.stream_analytics.helpers import student_event_reducer
import lo_kvs.prestartup
import lo_kvs.settings

assert learning_observer.__file__.startswith(sys.argv[1]), learning_observer.__file__
assert kvs.__file__.startswith(sys.argv[1])
assert lo_kvs.prestartup.StartupCheck is learning_observer.prestartup.StartupCheck
assert issubclass(kvs.MissingKVSParameters, learning_observer.prestartup.StartupCheck)
assert fields.Scope is helpers.Scope is lo_kvs.Scope

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
    "reducers": {"reducer_timeout": 5},
}
assert len(learning_observer.prestartup.STARTUP_CHECKS) == 2  # of stores, and of reducers
for check in learning_observer.prestartup.STARTUP_CHECKS:
    check()
kvs_startup_check()
assert lo_kvs.settings.settings == {}  # ours are not in use

def raises(check, text):
    try:
        check()
    except learning_observer.prestartup.StartupCheck as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)

learning_observer.settings.settings["reducers"] = {"reducer_timeout": "soon"}
raises(learning_observer.prestartup.STARTUP_CHECKS[-1], "reducer_timeout")
del learning_observer.settings.settings["reducers"]
learning_observer.settings.settings["kvs"]["default"] = {"type": "no such type"}
raises(kvs_startup_check, "no such type")
try:
    lo_kvs.configure({"kvs": {"default": {"type": "stub"}}})
except RuntimeError as error:
    assert "learning_observer.settings" in str(error), error
else:
    raise AssertionError("two places for settings")
print(json.dumps(asyncio.run(main())))
"""


def copy_swapped(package: Path) -> None:
    for name in SWAPPED:
        target = package / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / name, target)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The folder of a tree that has a `learning_observer` of its own, with our modules in it."""
    package = tmp_path / "tree" / "learning_observer"
    copy_swapped(package)
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
    """Of lo_kvs the copied files import what forwards them; it imports settings and prestartup."""
    for name in SWAPPED:
        tree = ast.parse((SOURCE / name).read_bytes())
        at_run_time = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        modules = {node.module for node in at_run_time if isinstance(node, ast.ImportFrom)}
        assert modules == {"typing", "lo_kvs"}
        assert len(at_run_time) == 2


def ending_of(program: str, tree: Path) -> str:
    """The last line that a program prints, on standard output or error."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"import sys\nsys.path.insert(0, {str(tree)!r})\n{program}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return (done.stderr or done.stdout).strip().splitlines()[-1]


def test_lo_kvs_that_is_imported_first_says_so(foreign: Path) -> None:
    """Its errors would not be those that the deployment catches at startup."""
    said = ending_of("import lo_kvs.kvs, learning_observer.kvs", foreign)
    assert said == (
        "ImportError: lo_kvs was imported before learning_observer.kvs, so its errors are not the "
        "StartupCheck of learning_observer.prestartup: import learning_observer.kvs first, where "
        "the program starts"
    )


def test_lo_kvs_alone_may_be_imported_first(foreign: Path) -> None:
    """`import lo_kvs` loads nothing of it yet."""
    program = """
        import lo_kvs
        from learning_observer import kvs, prestartup
        print(lo_kvs.StartupCheck is prestartup.StartupCheck)
    """
    assert ending_of("\n".join(map(str.strip, program.splitlines())), foreign) == "True"


def test_a_program_that_lo_kvs_configures_may_import_modules_of_the_deployment(
    foreign: Path,
) -> None:
    """As the command line does with `--reducers`: the settings stay those of lo_kvs."""
    program = """
        import lo_kvs
        lo_kvs.configure({"kvs": {"default": {"type": "stub"}}})
        from learning_observer import kvs, prestartup
        assert kvs.KVS is lo_kvs.KVS
        assert lo_kvs.StartupCheck is not prestartup.StartupCheck
        print(type(kvs.KVS()).__name__)
    """
    assert ending_of("\n".join(map(str.strip, program.splitlines())), foreign) == "InMemoryKVS"


def test_the_command_line_runs_reducers_of_the_deployment(foreign: Path, tmp_path: Path) -> None:
    (foreign / "their_reducers.py").write_text(
        """
from learning_observer.stream_analytics.helpers import KeyField, Scope, student_event_reducer

@student_event_reducer(null_state={"count": 0})
async def count(event, state):
    state["count"] += 1
    return state, state

REDUCERS = [{"context": "org.mitros.writing_analytics", "scope": Scope([KeyField.STUDENT]),
             "function": count, "default": {}}]
"""
    )
    log = Path(__file__).parents[1] / "data/pair.study.log"
    program = f"""
import os
os.chdir({str(tmp_path)!r})
from lo_kvs.cli import app
app(["ingest", {str(log)!r}, "--reducers", "their_reducers"], standalone_mode=False)
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(foreign)!r})\n{program}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 events")
    assert list((tmp_path / ".lo_kvs").glob("*their_reducers.count,*.json"))
