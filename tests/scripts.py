"""Run a script of the repository in this process, which has imported torch already."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import pytest

__all__ = ["run_script"]

ROOT = Path(__file__).parents[1]


def run_script(path: str, *arguments: object) -> str:
    """What ``python PATH ARGUMENTS`` prints; raises what the script raises."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.syspath_prepend(ROOT / Path(path).parent)
        patch.setattr(sys, "argv", [path, *map(str, arguments)])
        runpy.run_path(str(ROOT / path), run_name="__main__")
    return out.getvalue()
