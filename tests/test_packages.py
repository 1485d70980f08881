"""The list of packages in pyproject.toml is complete, so that a wheel has every module."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_kernels_is_no_package() -> None:
    # A regular package of this name would hide the library `kernels`, which transformers imports.
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_every_package_is_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = setuptools["package-dir"]

    def folder(package: str) -> Path:
        parent, _, name = package.rpartition(".")
        return Path(folders[package]) if package in folders else folder(parent) / name

    listed = {folder(package) for package in setuptools["packages"]}
    sources = (ROOT / "spintok", ROOT / "kernels", ROOT / "pretrained", ROOT / "benchmarks")
    found = {file.parent.relative_to(ROOT) for source in sources for file in source.rglob("__init__.py")}
    # Some folders have data only.
    assert found <= listed
    assert [path for path in listed if not (ROOT / path).is_dir()] == []
