"""The docs say what is so: examples run, outputs and tables agree, what they name is there."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main
from tests.compat.test_swap import SWAPPED
from tests.faults.tally import FAULTS

from lo_kvs import reducers
from lo_kvs.cli import app, common
from lo_kvs.kvs import errors
from lo_kvs.kvs.checks.findings import REACHABLE
from lo_kvs.kvs.configuration import OPTIONS, read_block
from lo_kvs.kvs.filesystem.file_names import path_of
from lo_kvs.kvs.redis.key_names import cluster_name
from lo_kvs.redis_connection import RedisSettings
from lo_kvs.redis_connection.options import PREFIX
from lo_kvs.settings import load_settings, settings
from lo_kvs.stream_analytics.fields import KeyField

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.py"))
#: The packages of this tree.
PACKAGES = ("lo_kvs", "learning_observer")
#: Names that are gone and stay in docs: what the keys of the shipped reducers had before.
FORMER = "learning_observer.reducers"
#: Code samples that are longer stand in a file that is run.
LINES_MAX = 3

every_doc = pytest.mark.parametrize("doc", DOCS, ids=lambda doc: doc.name)


class Block(NamedTuple):
    """A fenced block of a doc: its language, its text, and the comment right before it."""

    language: str
    text: str
    comment: str


def blocks(doc: Path) -> list[Block]:
    found = re.findall(
        r"(?:^<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", doc.read_text(), re.MULTILINE | re.DOTALL
    )
    return [Block(language, text, comment) for comment, language, text in found]


def rows(doc: str, *, header: str) -> list[list[str]]:
    """The cells of the table in `doc` that begins with the line `header`."""
    _, table = (ROOT / doc).read_text().split(f"{header}\n")
    lines = itertools.takewhile(lambda line: line.startswith("|"), table.splitlines()[1:])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def run_example(example: Path, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.stem)
def test_example_runs_and_prints_what_the_docs_say(example: Path, tmp_path: Path) -> None:
    printed = run_example(example, tmp_path)
    said = f"output of examples/{example.name}"
    for block in itertools.chain.from_iterable(map(blocks, DOCS)):
        if block.comment == said:
            assert block.text == printed


def test_output_in_the_docs_is_that_of_an_example() -> None:
    named = {
        block.comment.removeprefix("output of examples/")
        for block in itertools.chain.from_iterable(map(blocks, DOCS))
        if block.comment.startswith("output of ")
    }
    assert named
    assert named <= {example.name for example in EXAMPLES}


def test_quickstart_is_the_one_in_the_readme(tmp_path: Path) -> None:
    example = ROOT / "docs/examples/quickstart.py"
    _, code = example.read_text().split("\n\n", 1)
    assert code in [block.text for block in blocks(ROOT / "README.md")]
    assert run_example(example, tmp_path) == "{'count': 1}\n"
    assert run_example(example, tmp_path) == "{'count': 2}\n"


def windows(lines: list[str], count: int) -> Iterator[str]:
    for start in range(len(lines) - count + 1):
        yield textwrap.dedent("\n".join(lines[start : start + count]))


@every_doc
def test_code_is_that_of_an_example(doc: Path) -> None:
    sources = [example.read_text().splitlines() for example in EXAMPLES]
    for block in blocks(doc):
        if block.language != "python":
            continue
        ast.parse(f"async def sample():\n{textwrap.indent(block.text, ' ')}")
        lines = block.text.splitlines()
        if len(lines) > LINES_MAX:
            assert any("\n".join(lines) in windows(source, len(lines)) for source in sources), (
                block.text
            )


def anchors(doc: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", doc.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@every_doc
def test_links_lead_somewhere(doc: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", doc.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = doc.parent / name if name else doc
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@every_doc
def test_files_that_are_named_are_there(doc: Path) -> None:
    text = doc.read_text()
    for name in re.findall(r"(?<![\w/.])(?:src|lua|docs|tests|benchmarks|tools)/[\w./-]*\w", text):
        assert (ROOT / name).exists(), name
    folders = "|".join(path.name for path in (ROOT / "src/lo_kvs").iterdir() if path.is_dir())
    for name in re.findall(rf"`((?:{folders})/[\w/]+\.py|\w+_connection\.py)`", text):
        assert any((ROOT / "src" / package / name).exists() for package in PACKAGES), name


def resolve(name: str) -> object:
    module, *rest = name.split(".")
    found: object = importlib.import_module(module)
    for part in rest:
        module += f".{part}"
        if not hasattr(found, part):
            importlib.import_module(module)
        found = getattr(found, part)
    return found


@every_doc
def test_python_names_are_there(doc: Path) -> None:
    for name in re.findall(rf"\b(?:{'|'.join(PACKAGES)})(?:\.[A-Za-z_]\w*)+", doc.read_text()):
        if not name.startswith(FORMER):
            resolve(name)


def commands(doc: Path, program: str) -> Iterator[list[str]]:
    text = doc.read_text()
    fenced = [
        line for block in blocks(doc) if block.language == "sh" for line in block.text.split("\n")
    ]
    for line in [*fenced, *re.findall(r"`([^`\n]+)`", text)]:
        words = re.sub(r"\s#.*", "", line).split()
        if words[:1] == [program] and len(words) > 1:
            yield words[1:]


@every_doc
def test_commands_and_their_options_are_there(doc: Path) -> None:
    cli: Any = typer.main.get_command(app)
    for name, *words in commands(doc, "lo-kvs"):
        known = {option for parameter in cli.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known | {"--help"}


@every_doc
def test_make_targets_are_there(doc: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name, *_ in commands(doc, "make"):
        assert name in targets


def test_names_on_a_cluster_are_as_told() -> None:
    for key, name in rows("docs/formats.md", header="| key | name on a cluster |"):
        assert cluster_name(key.strip("`")) == name.strip("`")


def test_options_of_stores_are_all_told() -> None:
    told = {
        (row[0].strip("`"), row[1].strip("`"), row[2])
        for row in rows(
            "docs/configuration.md", header="| type | option | required | value | default |"
        )
    }
    there = {
        (kind, name, "yes" if option.required else "")
        for kind, options in OPTIONS.items()
        for name, option in options.items()
    }
    without = {(kind, "-", "") for kind, options in OPTIONS.items() if not options}
    assert told == there | without


def test_options_of_the_connection_are_all_told() -> None:
    told = {
        row[0].strip("`"): row[2].strip("`")
        for row in rows("docs/configuration.md", header="| option | value | default |")
    }
    there = {
        PREFIX + field.name: "none"
        if field.default in (None, ())
        else f"{field.default:g}"
        if isinstance(field.default, float)
        else str(field.default).lower()
        for field in fields(RedisSettings)
    }
    assert told == there


def load(text: str, overlays: list[Path], folder: Path) -> dict[str, Any]:
    (folder / "creds.yaml").write_text(text)
    loaded = dict(load_settings(folder / "creds.yaml", overlays))
    entries, faults = read_block(loaded["kvs"], is_reserved=lambda _: False)
    assert entries
    assert faults == []
    RedisSettings.from_mapping(loaded.get("redis_connection"))
    return loaded


@pytest.fixture
def kept_settings() -> Iterator[None]:
    before = dict(settings)
    yield
    settings.clear()
    settings.update(before)


@pytest.mark.usefixtures("kept_settings")
def test_settings_in_the_docs_hold(tmp_path: Path) -> None:
    base, *rest = [
        block
        for block in blocks(ROOT / "docs/configuration.md")
        if block.language in ("yaml", "css")
    ]
    plain = load(base.text, [], tmp_path)
    laid: dict[str, Any] = {}
    for block in rest:
        if block.comment == "":
            load(block.text, [], tmp_path)
            continue
        overlay = tmp_path / ("over.pmss" if block.language == "css" else "over.yaml")
        overlay.write_text(block.text)
        found = load(base.text, [overlay], tmp_path)
        assert found != plain
        if block.comment == "the same":
            assert found == laid
        laid = found
    for block in blocks(ROOT / "README.md"):
        if block.language == "yaml":
            load(block.text, [], tmp_path)


def test_errors_are_all_told() -> None:
    told = {
        row[0].strip("`")
        for row in rows(
            "docs/faults.md", header="| error | what it means | was it written? | what to do |"
        )
    }
    there = {
        name
        for name, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, errors.KVSError) and each is not errors.KVSError
    }
    assert told == there


def test_faults_are_all_told() -> None:
    found = rows("docs/faults.md", header="| | fault | must hold | in tests/faults |")
    assert [row[0] for row in found] == list(FAULTS)
    told = set(re.findall(r"`(test_\w+\.py)`", (ROOT / "docs/faults.md").read_text()))
    there = {path.name for path in (ROOT / "tests/faults").glob("test_*.py")}
    assert there - {"test_tally.py"} <= told


def test_checks_of_a_server_are_all_told() -> None:
    header = "| check | warning | error | asked by |"
    told = {row[0]: row for row in rows("docs/operations.md", header=header)}
    source = "".join(file.read_text() for file in ROOT.glob("src/lo_kvs/kvs/checks/*.py"))
    there = re.findall(r'Severity\.(WARNING|ERROR),\s*(?:"([\w ]+)"|REACHABLE)', source)
    assert {check or REACHABLE for _, check in there} == told.keys()
    for severity, check in there:
        assert told[check or REACHABLE][1 if severity == "WARNING" else 2]


def test_exit_codes_are_all_told() -> None:
    told = {int(row[0]) for row in rows("docs/faults.md", header="| code | meaning |")}
    assert told == {
        common.DONE,
        common.PROBLEMS,
        common.USAGE,
        common.STRICT,
        common.STORE,
        common.INTERRUPTED,
    }


def test_reducers_that_ship_are_all_told() -> None:
    told = {
        row[0].strip("`"): (row[1], set(ast.literal_eval(row[2].strip("`"))))
        for row in rows("docs/reducers.md", header="| reducer | by | state |")
    }
    there = {
        entry["function"].__name__: (
            "student" if entry["scope"] == {KeyField.STUDENT} else "student and document",
            set(entry["default"]),
        )
        for entry in reducers.REDUCERS
    }
    assert told == there


def test_file_names_are_as_told() -> None:
    found = rows("docs/formats.md", header="| key | file | with `subdirs` |")
    assert found
    for row in found:
        key, flat, nested = (cell.strip("`") for cell in row)
        assert str(path_of(key, subdirs=False)) == flat
        assert str(path_of(key, subdirs=True)) == nested


def test_module_of_reducers_goes_through_the_command_line(tmp_path: Path) -> None:
    shutil.copy(ROOT / "docs/examples/word_count.py", tmp_path)
    log = ROOT / "tests/data/pair.study.log"
    program = "import sys; from lo_kvs.cli import app; app(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "ingest", str(log), "--reducers", "word_count"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 events")
    assert list((tmp_path / ".lo_kvs").glob("^E^xternal,word_count.words_typed,*.json"))


#: What a deployment's own modules must have, and no more.
OTHER_SETTINGS = 'settings = {"kvs": {"default": {"type": "stub"}}}\n'
OTHER_PRESTARTUP = """
class StartupCheck(Exception):
    pass

checks = []

def register_startup_check(check):
    checks.append(check)
    return check
"""
OTHER_MAIN = """
import asyncio
from learning_observer import kvs, prestartup, redis_connection
from learning_observer.stream_analytics import fields, helpers
from lo_kvs.stream_analytics import pipeline, query

@helpers.student_event_reducer(null_state={"count": 0})
async def count(event, state):
    state["count"] += 1
    return state, state

for check in prestartup.checks:
    check()
kvs.kvs_startup_check()

async def main():
    process = await count({"auth": {"safe_user_id": "s1"}})
    await process({"client": {"event": "x"}})
    print(await kvs.KVS().dump())

asyncio.run(main())
"""


def test_modules_to_swap_are_all_told(tmp_path: Path) -> None:
    (listed,) = [
        block.text.split()
        for block in blocks(ROOT / "docs/differences.md")
        if block.comment == "the modules to copy"
    ]
    package = tmp_path / "learning_observer"
    (package / "stream_analytics").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "stream_analytics/__init__.py").touch()
    (package / "settings.py").write_text(OTHER_SETTINGS)
    (package / "prestartup.py").write_text(OTHER_PRESTARTUP)
    (tmp_path / "main.py").write_text(OTHER_MAIN)
    for name in listed:
        shutil.copy(ROOT / "src/learning_observer" / name, package / name)
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(listed) == set(SWAPPED)
    key = "nal,__main__.count,STUDENT:s1"
    assert ast.literal_eval(done.stdout) == {
        f"Inter{key}": {"count": 1},
        f"Exter{key}": {"count": 1},
    }
