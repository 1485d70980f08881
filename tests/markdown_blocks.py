"""Fenced code blocks of a Markdown page, and running them in their order, as a reader does."""

import ast
import contextlib
import io
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command_line

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Block:
    """A fenced block: where it starts, its language, its text, and the output that the page shows after it."""

    page: Path
    line: int
    language: str
    text: str
    output: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """The Markdown files that readers are sent to."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("pretrained/*/*.md")]
    return sorted(found)


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page; a ``text`` block directly after another one is that one's output."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start, between = -1, False
    for number, line in enumerate(lines):
        if not line.strip().startswith("```"):
            between = between or (start < 0 and bool(line.strip()))
        elif start < 0:
            start = number
        else:
            language = lines[start].strip().removeprefix("```").split()[0] if lines[start].strip() != "```" else ""
            text = "\n".join(lines[start + 1 : number])
            if language == "text" and found and not between:
                last = found.pop()
                found.append(Block(page, last.line, last.language, last.text, text))
            else:
                found.append(Block(page, start + 1, language, text))
            start, between = -1, False
    return found


def run(block: Block, folder: Path, namespace: dict[str, Any]) -> str:
    """Run a block of Python or shell in ``folder``; gives what it prints."""
    match block.language:
        case "python":
            return run_python(block.text, str(block), namespace)
        case "sh":
            return _run_shell(block, folder)
        case _:
            return ""


def run_python(text: str, name: str, namespace: dict[str, Any]) -> str:
    """Run Python as a notebook cell does: what it prints, then the value of the last expression, if it has one."""
    body = ast.parse(text, name).body
    last = ast.Expression(body.pop().value) if body and isinstance(body[-1], ast.Expr) else None  # type: ignore[attr-defined]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(ast.Module(body, []), name, "exec"), namespace)
        value = None if last is None else eval(compile(last, name, "eval"), namespace)
        if value is not None:
            print(repr(value))
    return out.getvalue()


def _run_shell(block: Block, folder: Path) -> str:
    """Each line in turn: ``spintok`` itself in this process, which has imported torch already, all else in bash."""
    lines = [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]
    return "".join(_spintok(line, block) if _is_plain(line) else _bash(line, folder, block) for line in lines)


def _is_plain(line: str) -> bool:
    return line.startswith("spintok ") and not set(line) & set("|<>&;$`*")


def _spintok(line: str, block: Block) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = command_line.call(*shlex.split(line)[1:])
    assert not code, f"{block}: exit code {code}: {line}"
    return out.getvalue()


def _bash(line: str, folder: Path, block: Block) -> str:
    # `spintok` and `python` are those of the environment that runs the tests.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=folder,
        env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{block}: exit code {done.returncode}: {line}\n{done.stdout}{done.stderr}"
    return done.stdout
