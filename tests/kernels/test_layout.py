"""The repository's layout, where a slip breaks an install or another package's import."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_kernels_is_no_package() -> None:
    # A regular package of this name hides the library `kernels`, which transformers imports.
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib")
def test_every_package_is_installed() -> None:
    import tomllib

    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    homes = setuptools["package-dir"]
    listed = set()
    for package in setuptools["packages"]:
        parent, _, name = package.rpartition(".")
        listed.add(Path(homes[package]) if package in homes else Path(homes[parent]) / name)
    sources = (ROOT / "spintok", ROOT / "kernels", ROOT / "pretrained")
    found = {file.parent.relative_to(ROOT) for source in sources for file in source.rglob("__init__.py")}
    assert listed == found


def test_kernels_import_nothing_of_spintok() -> None:
    for file in (ROOT / "kernels" / "spintok_kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, file
                names = [node.module or ""]
            assert not [name for name in names if name.split(".")[0] == "spintok"], file
