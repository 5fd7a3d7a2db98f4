"""Both distributions in one environment, and next to a Learning Observer."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from tests.compat.support import creds
from tests.compat.test_program import EXPECTED
from tests.packaging.environments import PROJECT, Installed, run, stand_in, the_only

#: Uses stores, reducers and settings; prints what is in the store, and what was imported.
USE = """
    import asyncio, json, sys
    import lo_kvs
    from lo_kvs import reducers, testing
    from lo_kvs.stream_analytics.keys_from_json import SourceNotAllowed, make_key_from_json

    lo_kvs.configure({"kvs": {"default": {"type": "filesystem", "path": "states"}}})

    async def main():
        process = await reducers.event_count({"auth": {"safe_user_id": "s1"}})
        await process({"client": {"event": "x"}}, {})
        states = await lo_kvs.KVS().dump()
        await lo_kvs.KVS().clear()
        return states

    states = asyncio.run(main())
    try:
        make_key_from_json({"source": "m.f", "KeyField.STUDENT": "s1"})
    except SourceNotAllowed:
        pass
    else:
        raise AssertionError("no list, and a source is allowed")
    assert not [name for name in sys.modules if name.startswith("learning_observer")]
    print(json.dumps(states))
"""
STATES = {
    f"{half},lo_kvs.reducers.activity.event_count,STUDENT:s1": {"count": 1}
    for half in ("Internal", "External")
}
FACADE = "from learning_observer import kvs; print(kvs.KVSRouter.__module__)"
THEIRS = "import learning_observer.kvs as kvs; print(kvs.NAME)"


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "environment")


@pytest.fixture
def lo_kvs_wheel(distributions: Path) -> Path:
    return the_only(distributions, "lo_kvs-*.whl")


@pytest.fixture
def facade_wheel(distributions: Path) -> Path:
    return the_only(distributions, "learning_observer_kvs-*.whl")


def use(installed: Installed) -> None:
    assert json.loads(installed.python_says(USE)) == STATES
    command = installed.folder / "bin" / "lo-kvs"
    run(command, "demo", "--students", "2", "--events", "100", cwd=installed.elsewhere)
    shutil.rmtree(installed.elsewhere / ".lo_kvs")


def test_lo_kvs_changes_no_byte_of_a_learning_observer(
    installed: Installed, lo_kvs_wheel: Path, tmp_path: Path
) -> None:
    installed.install(stand_in(tmp_path))
    before = installed.files_of("learning_observer")
    assert "learning_observer/settings.py" in before
    installed.install(lo_kvs_wheel)
    assert installed.files_of("learning_observer") == before
    use(installed)
    assert installed.files_of("learning_observer") == before
    assert installed.python_says(THEIRS) == "kvs.py"
    installed.uninstall("lo-kvs")
    assert installed.files_of("lo_kvs") == {}
    assert installed.files_of("learning_observer") == before
    assert installed.python_says(THEIRS) == "kvs.py"


def test_a_learning_observer_comes_and_goes_next_to_lo_kvs(
    installed: Installed, lo_kvs_wheel: Path, tmp_path: Path
) -> None:
    installed.install(lo_kvs_wheel)
    before = installed.files_of("lo_kvs")
    installed.install(stand_in(tmp_path))
    use(installed)
    installed.uninstall("learning-observer")
    assert installed.files_of("learning_observer") == {}
    assert installed.files_of("lo_kvs").items() >= before.items()
    use(installed)


def test_installing_the_facade_brings_lo_kvs(installed: Installed, distributions: Path) -> None:
    # With its dependencies, which are there already, but for lo-kvs.
    found: list[str | Path] = [
        "--no-index",
        "--find-links",
        distributions,
        "--only-binary",
        ":all:",
    ]
    installed.pip("install", "--quiet", *found, "learning-observer-kvs")
    assert installed.python_says(FACADE) == "lo_kvs.kvs.router"
    use(installed)


def test_tests_in_the_sdist_need_lo_kvs_alone(
    installed: Installed, distributions: Path, lo_kvs_wheel: Path, tmp_path: Path
) -> None:
    with tarfile.open(the_only(distributions, "lo_kvs-*.tar.gz")) as sdist:
        sdist.extractall(tmp_path, filter="data")
    tree = the_only(tmp_path, "lo_kvs-*")
    shutil.rmtree(tree / "src")  # what is tried is what was installed
    installed.install(lo_kvs_wheel)
    collect = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    said = run(installed.python, *collect, cwd=tree)
    assert re.search(r"^\d{4,} tests collected in", said, re.MULTILINE), said[-2000:]


def test_remove_the_facade_and_lo_kvs_works(
    installed: Installed, lo_kvs_wheel: Path, facade_wheel: Path
) -> None:
    installed.install(lo_kvs_wheel, facade_wheel)
    before = installed.files_of("lo_kvs")
    assert installed.python_says(FACADE) == "lo_kvs.kvs.router"
    installed.uninstall("learning-observer-kvs")
    assert installed.files_of("learning_observer") == {}
    assert installed.files_of("lo_kvs").items() >= before.items()
    use(installed)
    assert "No module named 'learning_observer'" in installed.python_fails(FACADE)


def test_remove_lo_kvs_and_the_facade_says_what_is_missing(
    installed: Installed, lo_kvs_wheel: Path, facade_wheel: Path
) -> None:
    installed.install(lo_kvs_wheel, facade_wheel)
    before = installed.files_of("learning_observer")
    installed.uninstall("lo-kvs")
    assert installed.files_of("learning_observer") == before
    assert installed.python_fails(FACADE) == (
        "ImportError: learning-observer-kvs has only names for lo_kvs, which is not installed: "
        "run `pip install lo-kvs`"
    )
    installed.install(lo_kvs_wheel)
    assert installed.python_says(FACADE) == "lo_kvs.kvs.router"


def test_the_facade_next_to_a_learning_observer_says_what_to_do(
    installed: Installed, lo_kvs_wheel: Path, facade_wheel: Path, tmp_path: Path
) -> None:
    theirs = stand_in(tmp_path)
    installed.install(theirs)
    before = installed.files_of("learning_observer")
    installed.install(lo_kvs_wheel, facade_wheel)  # overwrites files of theirs
    said = installed.python_fails(FACADE)
    assert said.startswith("ImportError: The Learning Observer 1.2.3 is installed here too")
    assert "pip uninstall learning-observer-kvs" in said
    assert "--force-reinstall" in said
    use(installed)
    installed.uninstall("learning-observer-kvs")
    installed.pip("install", "--quiet", "--no-index", "--no-deps", "--force-reinstall", theirs)
    assert installed.files_of("learning_observer").keys() == before.keys()
    assert installed.python_says(THEIRS) == "kvs.py"
    use(installed)


def test_a_program_of_an_existing_caller_runs_on_both(
    installed: Installed, lo_kvs_wheel: Path, facade_wheel: Path, redis_url: str, tmp_path: Path
) -> None:
    installed.install(lo_kvs_wheel, facade_wheel)
    settings = creds(tmp_path, redis_url, {"type": "redis"})
    program = PROJECT / "tests/compat/program.py"
    command: list[str | Path] = [installed.python, "-W", "error", program, settings, tmp_path]
    assert json.loads(run(*command, cwd=installed.elsewhere)) == EXPECTED
