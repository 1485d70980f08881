"""``spintok bench``."""

import sys
from typing import Annotated, Any, Literal

import typer

__all__ = ["EPILOG", "FORWARD", "bench"]

EPILOG = """Examples:

  spintok bench kernels assign --k 500 4096      one operation at some sizes

  spintok bench encode -- --help                 a benchmark's own options"""

Name = Literal[
    "decode",
    "encode",
    "evaluate",
    "export",
    "invariance",
    "kernels",
    "kmeans",
    "perturb",
    "scale",
    "stream",
    "train",
    "windows",
]

FORWARD: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Settings that pass all further arguments on to the benchmark."""


def bench(
    context: typer.Context,
    name: Annotated[Name, typer.Argument(help="What to measure.")],
) -> int:
    """Measure speed and memory on this machine, next to the usual alternatives; results are compared first."""
    from importlib import import_module

    try:
        module = import_module(f"spintok.benchmarks.{name}" + (".__main__" if name == "kernels" else ""))
    except ImportError as error:
        raise ValueError(f"this benchmark needs {error.name}: pip install 'spintok[bench]'") from None
    # For the usage line.
    sys.argv[0] = f"spintok bench {name} --"
    return int(module.main(context.args) or 0)
