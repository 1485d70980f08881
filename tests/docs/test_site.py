"""The site builds without a warning, and its pictures show what is."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from markdown_blocks import ROOT

# As `mkdocs build --strict`, without what gives no warnings and takes most of the time: the index of the search, and a
# process of ruff for each signature, which breaks it into lines.
BUILD = """
import logging
import sys
from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.utils.yaml import yaml_load

logging.basicConfig(format="%(levelname)s %(message)s")
sys.modules["ruff"] = None
plugins = [plugin for plugin in yaml_load(Path("mkdocs.yml").read_text())["plugins"] if plugin != "search"]
build(load_config("mkdocs.yml", strict=True, plugins=plugins, site_dir=sys.argv[1]))
"""


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    warnings = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert done.returncode == 0, "\n".join(warnings)
    page = (tmp_path / "site/reference/api/spintok/index.html").read_text()
    assert 'id="spintok.Tokenizer.encode"' in page or 'id="spintok.tokenizer.Tokenizer.encode"' in page


@pytest.mark.parametrize("name", ["tokens", "architecture"])
def test_pictures_are_up_to_date(name: str) -> None:
    drawn = (ROOT / f"docs/pictures/{name}.svg").read_text(encoding="utf-8")
    assert _script(name).draw() == drawn, f"run: python docs/pictures/{name}.py"


def test_every_package_of_the_picture_is_explained() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    names = {name for layer in _script("architecture").layers() for name in layer}
    assert not {name for name in names if f"`{name}`" not in page}


def test_the_citation_has_the_version_of_the_package() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def _script(name: str) -> ModuleType:
    """A script of docs/pictures as a module."""
    spec = importlib.util.spec_from_file_location(f"picture_{name}", ROOT / f"docs/pictures/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
