"""The pages keep their word: examples run and print what the page shows, commands parse, imports work."""

import ast
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from markdown_blocks import ROOT, Block, blocks, pages, run, run_python
from typer.main import get_command

from spintok.cli.app import app

RUN = [ROOT / "README.md", *sorted(ROOT.glob("docs/tutorials/*.md"))]
"""Pages whose examples are run; the README's shell commands install and test, so only its Python is."""

COMMANDS = get_command(app).commands

EXAMPLES = [block for page in pages() for block in blocks(page)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in with the repository's speech and recipes where pages expect them."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/speech").symlink_to(ROOT / "tests/speech")
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# WebDataset leaves its tar files to the garbage collector.
FORGIVEN = {"frameworks": [pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem, marks=FORGIVEN.get(page.stem, ())) for page in RUN])
def test_examples_print_what_the_page_shows(page: Path, folder: Path) -> None:
    namespace: dict[str, Any] = {}
    languages = {"python"} if page.name == "README.md" else {"python", "sh"}
    ran = 0
    for block in blocks(page):
        if block.language not in languages:
            continue
        printed = run(block, folder, namespace)
        ran += 1
        if block.output is not None:
            assert _stripped(printed) == _stripped(block.output), block
    assert ran


def test_the_line_of_a_shard_in_the_readme_is_what_encode_writes(folder: Path) -> None:
    (shown,) = (json.loads(b.text) for b in blocks(ROOT / "README.md") if b.language == "json")
    run(Block(ROOT / "README.md", 0, "sh", "spintok encode tests/speech out --quiet"), folder, {})
    written = [json.loads(line) for line in (folder / "out/tokens-00000.jsonl").read_text().splitlines()]
    assert shown in written
    assert list(shown) == list(written[0])


def test_the_readme_lists_every_command() -> None:
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in re.findall(r"`(?:spintok )?([a-z-]+)[ `]", row.split("|")[1])}
    assert not set(COMMANDS) - named


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_rows_of_tables_and_fences_are_closed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("\n```") % 2 == 0
    outside = re.sub(r"\n```.*?\n```", "", text, flags=re.DOTALL)
    assert not [line for line in outside.splitlines() if line.startswith("|") and not line.rstrip().endswith("|")]


@pytest.mark.parametrize("block", [b for b in EXAMPLES if b.language == "sh"], ids=str)
def test_commands_and_options_exist(block: Block) -> None:
    for words in _commands(block.text):
        _parse(words)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_sentences_exist(page: Path) -> None:
    for line in re.findall(r"`spintok ([a-z][^`]*)`", page.read_text()):
        name, *rest = shlex.split(line)
        try:
            _parse([name, *rest])
        except Exception as error:
            # A sentence may leave out arguments, but not make any up. Some releases of typer bring their own click.
            if type(error).__name__ != "MissingParameter":
                raise


@pytest.mark.parametrize("block", [b for b in EXAMPLES if b.language == "python"], ids=str)
def test_python_compiles_and_its_imports_exist(block: Block) -> None:
    tree = ast.parse(block.text, str(block))
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    run_python("\n".join(imports), str(block), {})


def test_every_environment_variable_is_documented() -> None:
    code = [path.read_text() for root in ("spintok", "kernels") for path in (ROOT / root).rglob("*.py")]
    # The kernels' libraries share one reader, which makes the name from that of the library.
    names = {name for text in code for name in re.findall(r"\bSPINTOK_[A-Z]+(?:_[A-Z]+)*\b", text)} - {
        "SPINTOK_NAME_CPU"
    }
    page = (ROOT / "docs/reference/environment.md").read_text()
    assert not {name for name in names if f"`{name}`" not in page}


def test_every_extra_is_documented() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs/reference/environment.md").read_text()
    assert not {name for name in extras if f"`{name}`" not in page}


def test_the_notebook_gives_the_outputs_that_it_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = json.loads((ROOT / "docs/notebooks/tokens.ipynb").read_text())
    monkeypatch.chdir(ROOT / "docs/notebooks")
    namespace: dict[str, Any] = {}
    ran = 0
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            printed = run_python("".join(cell["source"]), f"cell {number}", namespace)
            stored = "".join(text for output in cell["outputs"] for text in _texts(output))
            assert _stripped(printed) == _stripped(stored), number
            ran += 1
    assert ran


def _parse(words: list[str]) -> None:
    """Parse the arguments of ``spintok``; raises for a command, option or choice that there is not."""
    COMMANDS[words[0]].make_context(words[0], words[1:]).close()


def _texts(output: dict[str, Any]) -> list[str]:
    return output["text"] if output["output_type"] == "stream" else [*output["data"]["text/plain"], "\n"]


def _stripped(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def _commands(text: str) -> list[list[str]]:
    """The arguments of each call of spintok in a shell block."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        starts = [i for i, word in enumerate(words) if word.rpartition("/")[2] == "spintok"]
        for start in starts:
            rest = words[start + 1 :]
            end = next((i for i, word in enumerate(rest) if word in ("|", ">", ">>", "&&", ";")), len(rest))
            if end and not rest[0].startswith("["):
                found.append(rest[:end])
    return found
