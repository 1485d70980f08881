"""``spintok bench``."""

from typing import Annotated, Any, Literal

import typer

__all__ = ["EPILOG", "FORWARD", "bench"]

EPILOG = """Examples:

  spintok bench kernels assign --k 500 4096      one operation at some sizes

  spintok bench encode -- --help                 a benchmark's own options"""

FORWARD: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True}
"""A benchmark reads its own arguments."""


def bench(
    context: typer.Context,
    name: Annotated[Literal["encode", "kernels", "perturb", "train"], typer.Argument(help="What to measure.")],
) -> int:
    """Measure speed and memory on this machine, beside what you would use instead; agreement is checked first."""
    from importlib import import_module

    module = import_module(f"spintok.benchmarks.{name}" + (".__main__" if name == "kernels" else ""))
    return int(module.main(context.args) or 0)
