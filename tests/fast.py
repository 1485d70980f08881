"""What ``bash tests/run --fast`` leaves out: an installation that would change nothing, and tests far from the change.

Tests are run in the order of their distance from what changed: a changed test file first, then files that import a
changed module, then those that import one that imports it. After a number of files and a budget of seconds the rest is
left out, and the last line says how much. Imports need no database of earlier runs, as coverage would, and see tests
that start a process.
"""

import ast
import hashlib
import subprocess
import sys
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {"spintok": "spintok", "kernels/spintok_kernels": "spintok_kernels", "benchmarks": "benchmarks"}
"""Folders and the names of their packages."""
FILES = 12
"""Test files that are run at most: importing all of them would take the minute."""
BUDGET = 35.0
"""Seconds after which no further test starts."""

Graph = dict[str, set[str]]


def stamp(root: Path = ROOT) -> str:
    """A digest of all that an installation depends on: dependencies, packages and C++ sources."""
    digest = hashlib.sha256()
    sources = [path for path in root.glob("kernels/**/*") if path.suffix in (".cpp", ".h")]
    for path in sorted([root / "pyproject.toml", root / ".ci/constraints-cpu.txt", *sources]):
        digest.update(f"{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def changed_files(root: Path = ROOT) -> list[str]:
    """Files that differ from where the branch left ``main``, on main itself from the last commit; new files too."""

    def git(*arguments: str) -> list[str]:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.splitlines() if done.returncode == 0 else []

    base = git("merge-base", "HEAD", "main") or ["HEAD"]
    return sorted({*git("diff", "--name-only", base[0]), *git("ls-files", "--others", "--exclude-standard")})


def importers(root: Path = ROOT) -> Graph:
    """By file, the files that import it; paths are relative to the repository."""
    modules: dict[str, str] = {}
    files: list[tuple[str, str]] = []
    for folder, package in {**SOURCES, "tests": ""}.items():
        for path in sorted((root / folder).rglob("*.py")):
            parts = [package, *path.relative_to(root / folder).with_suffix("").parts]
            name = ".".join(part for part in parts if part and part != "__init__")
            modules[name] = str(path.relative_to(root))
            files.append((name, str(path.relative_to(root))))
    found: Graph = defaultdict(set)
    for name, file in files:
        package = name if file.endswith("__init__.py") else name.rpartition(".")[0]
        for imported in _imports((root / file).read_text(encoding="utf-8"), package):
            # A package's __init__ runs too, but what it imports is not what is meant.
            if imported in modules and modules[imported] != file:
                found[modules[imported]].add(file)
    return found


def select(changed: Iterable[str], root: Path = ROOT) -> list[str]:
    """Test files that depend on changed files, nearest first: for ``spintok/a/b.py`` that is ``tests/a/test_b.py``."""
    changed = list(changed)
    mirrors = {str(Path("tests", *Path(file).parts[1:-1], f"test_{Path(file).stem}.py")) for file in changed}
    graph = importers(root)
    tests = sorted(str(path.relative_to(root)) for path in (root / "tests").rglob("test_*.py"))
    distance: dict[str, int] = {}
    waiting: deque[str] = deque()

    def reach(file: str, steps: int) -> None:
        if file not in distance:
            distance[file] = steps
            waiting.append(file)

    for file in changed:
        path = Path(file)
        if path.suffix == ".py":
            reach(file, 0)
        else:
            # A C++ source or a page's template belongs to the modules beside it; else tests name a file or its folder.
            for near in _modules_beside(root / path.parent, root):
                reach(near, 1)
            names = {path.name, f"{path.parts[0]}/", f'"{path.parts[0]}"'}
            for test in tests:
                text = (root / test).read_text(encoding="utf-8")
                if any(name in text for name in names):
                    reach(test, 1)
    while waiting:
        file = waiting.popleft()
        for importer in sorted(graph.get(file, ())):
            reach(importer, distance[file] + 1)
        if Path(file).name == "conftest.py":
            for test in tests:
                if Path(file).parent in Path(test).parents:
                    reach(test, distance[file] + 1)
    found = [test for test in tests if test in distance]
    return sorted(found, key=lambda test: (distance[test] - (test in mirrors), test))


class Budget:
    """A pytest plugin: no test starts after ``seconds``; ``left_out`` counts those that did not."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds
        self.left_out = 0

    def pytest_runtest_setup(self) -> None:
        import pytest

        if time.monotonic() > self.end:
            self.left_out += 1
            pytest.skip("out of time")


def run(arguments: list[str]) -> int:
    """Run the tests of what changed; the exit code."""
    import pytest

    selected = select(changed_files())
    if not selected:
        print("tests/run --fast: no test depends on what changed")
        return 0
    budget = Budget(BUDGET)
    near = ["-q", "-m", "not slow and not requires_gpu", *arguments, *selected[:FILES]]
    code = int(pytest.main(near, plugins=[budget]))
    print(
        f"tests/run --fast: {len(selected)} test files depend on what changed; the nearest {min(len(selected), FILES)} "
        f"were run without {budget.left_out} tests, for which there was no time; bash tests/run runs everything"
    )
    # 5: the files hold slow tests only.
    return 0 if code == 5 else code


def _imports(source: str, package: str) -> set[str]:
    """Modules that a module imports, and what it may import from them, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def _modules_beside(folder: Path, root: Path) -> list[str]:
    """The modules of the nearest folder upwards that has any, within the sources."""
    for where in (folder, *folder.parents):
        if not any(where == root / source or root / source in where.parents for source in SOURCES):
            return []
        if found := sorted(where.glob("*.py")):
            return [str(path.relative_to(root)) for path in found]
    return []


if __name__ == "__main__":
    if sys.argv[1:2] == ["stamp"]:
        print(stamp())
    else:
        sys.exit(run(sys.argv[1:]))
