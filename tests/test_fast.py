"""``tests/run --fast``: when it installs, what it selects, and that it ends in time."""

import subprocess
import sys
from pathlib import Path

import fast
import pytest

ROOT = fast.ROOT


def make(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of the same layout: ``tokenizer`` imports ``tokens``, and ``cli`` imports ``tokenizer``."""
    make(
        tmp_path,
        {
            "pyproject.toml": "[project]\n",
            ".ci/constraints-cpu.txt": "torch\n",
            "kernels/spintok_kernels/__init__.py": "",
            "kernels/spintok_kernels/assign/__init__.py": "",
            "kernels/spintok_kernels/assign/op.py": "from . import native\n",
            "kernels/spintok_kernels/assign/native.py": "",
            "kernels/spintok_kernels/assign/assign.cpp": "int x;\n",
            "spintok/__init__.py": "",
            "spintok/tokens.py": "",
            "spintok/tokenizer.py": "from spintok.tokens import Tokens\n",
            "spintok/cli/__init__.py": "",
            "spintok/cli/encode.py": "def f():\n    from spintok.tokenizer import Tokenizer\n",
            "recipes/tiny.toml": "",
            "tests/helper.py": "import spintok.tokenizer\n",
            "tests/test_tokens.py": "import spintok.tokens\n",
            "tests/a/test_other.py": "from spintok import tokens\n",
            "tests/a/test_tokenizer.py": "from helper import x\n",
            "tests/cli/test_encode.py": "from spintok.cli import encode\n",
            "tests/kernels/test_assign.py": "from spintok_kernels.assign.op import assign\n",
            "tests/recipes/test_recipes.py": "ROOT / 'recipes/tiny.toml'\n",
            "tests/test_alone.py": "",
        },
    )
    return tmp_path


def test_a_stamp_changes_with_what_is_installed_only(project: Path) -> None:
    first = fast.stamp(project)
    make(project, {"spintok/tokens.py": "x = 1\n", "tests/test_tokens.py": ""})
    assert fast.stamp(project) == first
    for name in ("kernels/spintok_kernels/assign/assign.cpp", "pyproject.toml", ".ci/constraints-cpu.txt"):
        make(project, {name: "changed\n"})
        assert fast.stamp(project) != first
        first = fast.stamp(project)


@pytest.mark.parametrize(
    ("changed", "selected"),
    [
        (
            ["spintok/tokens.py"],
            ["tests/test_tokens.py", "tests/a/test_other.py", "tests/a/test_tokenizer.py", "tests/cli/test_encode.py"],
        ),
        (["spintok/cli/encode.py"], ["tests/cli/test_encode.py"]),
        (["tests/a/test_other.py"], ["tests/a/test_other.py"]),
        (["tests/helper.py"], ["tests/a/test_tokenizer.py"]),
        (["kernels/spintok_kernels/assign/assign.cpp"], ["tests/kernels/test_assign.py"]),
        (["recipes/tiny.toml"], ["tests/recipes/test_recipes.py"]),
        (["LICENSE"], []),
    ],
)
def test_the_tests_that_depend_on_a_change_come_nearest_first(
    project: Path, changed: list[str], selected: list[str]
) -> None:
    assert fast.select(changed, project) == selected


def test_the_map_of_this_repository_reaches_the_tests() -> None:
    selected = fast.select(["spintok/tokens.py"])
    assert selected[0] == "tests/test_tokens.py"
    assert {"tests/test_tokenizer.py", "tests/cli/test_cli.py", "tests/export/test_bpe.py"} <= set(selected)
    assert "tests/kernels/test_ops.py" not in selected


def test_changes_are_counted_from_where_the_branch_left_main(project: Path) -> None:
    def git(*arguments: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main")
        subprocess.run(["git", *who, *arguments], cwd=project, check=True, capture_output=True)

    git("init")
    git("add", "-A")
    git("commit", "-m", "first")
    assert fast.changed_files(project) == []
    git("checkout", "-b", "work")
    make(project, {"spintok/tokens.py": "x = 1\n"})
    git("commit", "-am", "second")
    make(project, {"spintok/tokenizer.py": "y = 1\n", "spintok/new.py": ""})
    assert fast.changed_files(project) == ["spintok/new.py", "spintok/tokenizer.py", "spintok/tokens.py"]


def test_no_test_starts_when_the_time_is_over(tmp_path: Path) -> None:
    tests = "import __main__\n\ndef test_a():\n    __main__.budget.end = 0\n\ndef test_b():\n    assert False\n"
    make(tmp_path, {"test_two.py": tests})
    code = (
        "import fast, pytest, sys; budget = fast.Budget(60); "
        "code = pytest.main(['-q', '-p', 'no:cacheprovider', 'test_two.py'], plugins=[budget]); "
        "sys.exit(10 * budget.left_out + code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "tests")}, check=False
    )
    assert done.returncode == 10
