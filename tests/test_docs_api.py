"""README, the page of the API, the glossary and the architecture page agree with the code."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lo_kvs

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
API = ROOT / "docs/api.md"
GLOSSARY = ROOT / "docs/glossary.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
#: An entry of the glossary has two lines of a page at most.
ENTRY_CHARACTERS_MAX = 220


def first_cells(page: Path) -> list[str]:
    """The code in the first cell of each row of each table."""
    return re.findall(r"^\| `([^`]+)` \|", page.read_text(), re.MULTILINE)


def described() -> dict[str, list[str] | None]:
    """Each name on the page of the API, with the parameters that it is shown with."""
    found: dict[str, list[str] | None] = {}
    for cell in first_cells(API):
        name, bracket, rest = cell.partition("(")
        assert name not in found, f"{name} is on the page twice"
        found[name] = [each for each in rest.rstrip(")").split(", ") if each] if bracket else None
    return found


def test_api_page_has_every_public_name_and_no_other() -> None:
    assert sorted(described()) == sorted(lo_kvs.__all__)


def test_api_page_shows_the_parameters_of_the_code() -> None:
    shown = {name: names for name, names in described().items() if names is not None}
    assert shown
    for name, parameters in shown.items():
        signature = inspect.signature(getattr(lo_kvs, name))
        assert list(signature.parameters) == parameters, name


def test_api_page_lists_the_methods_of_a_store() -> None:
    (block,) = re.findall(r"^```text\n(.*?)^```$", API.read_text(), re.MULTILINE | re.DOTALL)
    shown = set(re.findall(r"\bstore\.(\w+)\(", block))
    assert shown <= set(dir(lo_kvs.Store))
    asynchronous = {
        name
        for name, member in inspect.getmembers(lo_kvs.Store)
        if not name.startswith("_") and inspect.iscoroutinefunction(member)
    }
    assert asynchronous <= shown


def test_quickstart_has_one_line_of_our_imports() -> None:
    source = (ROOT / "docs/examples/quickstart.py").read_text()
    ours = [line for line in source.splitlines() if re.match(r"\s*(from|import) lo_kvs", line)]
    assert ours == ["import lo_kvs"]


def test_quickstart_continues_from_its_files(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "docs/examples/quickstart.py")]
    for count in (1, 2):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.stdout, done.stderr) == (f"{{'count': {count}}}\n", "")


def test_readme_has_no_links_that_break_on_a_package_index() -> None:
    text = README.read_text()
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(
        r"^\[[^]]+\]:\s*(\S+)", text, re.MULTILINE
    )
    assert [target for target in targets if not target.startswith("https://")] == []
    assert "```mermaid" not in text


def test_readme_names_every_page_of_the_docs() -> None:
    text = README.read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text or page.name == "performance.md", page.name


def test_figures_in_the_readme_are_those_of_the_performance_page() -> None:
    figures = README.read_text().split("## Figures\n")[1].split("\n## ")[0]
    rows = [line.split("|")[2:5] for line in figures.splitlines() if "make bench" in line]
    assert rows
    measured = set(re.findall(r"\d[\d,.]*\d|\d", (ROOT / "docs/performance.md").read_text()))
    for ours, baseline, command in rows:
        for figure in re.findall(r"\d[\d,.]*\d|\d", ours + baseline):
            assert figure in measured, (figure, command)


def entries() -> dict[str, str]:
    """The terms of the glossary, and what each means."""
    found = re.findall(r"^- \*\*(.+?)\*\*: (.+)$", GLOSSARY.read_text(), re.MULTILINE)
    assert found
    return dict(found)


def test_glossary_is_in_order_and_each_entry_is_short() -> None:
    terms = list(entries())
    assert terms == sorted(terms, key=str.lower)
    for term, meaning in entries().items():
        assert len(term) + len(meaning) <= ENTRY_CHARACTERS_MAX, term


@pytest.mark.parametrize("page", [API, ARCHITECTURE], ids=lambda page: page.stem)
def test_page_links_to_the_glossary(page: Path) -> None:
    assert "](glossary.md)" in page.read_text()


def path_of(name: str) -> Path:
    """A file that the architecture page names: from the top of the tree, or below src/lo_kvs."""
    below = ROOT / "src/lo_kvs" / name
    return below if below.exists() else ROOT / name


def test_files_on_the_architecture_page_exist() -> None:
    named = re.findall(r"`([\w./]+(?:\.(?:py|pyx|pxd|lua|md|toml)|/))`", ARCHITECTURE.read_text())
    assert named
    for name in named:
        assert path_of(name).exists(), name


def test_names_in_the_table_of_questions_are_in_their_files() -> None:
    rows = re.findall(
        r"^\| ([^|`]+) \| `([^`|]+)` \| ([^|]+) \|$", ARCHITECTURE.read_text(), re.MULTILINE
    )
    assert len(rows) >= 18
    for question, file, names in rows:
        source = path_of(file).read_text()
        for name in re.findall(r"`([^`]+)`", names):
            last = name.rpartition(".")[2]
            assert re.search(rf"\b{re.escape(last)}\b", source), (question, file, name)
