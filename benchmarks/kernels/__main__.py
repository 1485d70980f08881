"""python -m benchmarks.kernels: measure the compiled ops on this machine."""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from . import assign, loss, report
from .harness import Case, Settings, ceilings, machine, measure

__all__ = ["OPS", "main"]

OPS: dict[str, Callable[[Settings], Iterator[Case]]] = {"assign": assign.cases, "loss": loss.cases}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if a provider of ours disagreed with the truth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="op", help=f"of {', '.join(OPS)} (default: all)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--n", type=int, nargs="+", default=[1500, 25_600, 200_000, 1_000_000], help="rows")
    parser.add_argument("--k", type=int, nargs="+", default=[50, 500, 2000, 4096, 8192], help="codewords")
    parser.add_argument("--d", type=int, nargs="+", default=[256, 768], help="dimensions")
    parser.add_argument("--providers", nargs="+", default=[], help="only those whose name has one of these words")
    parser.add_argument("--seconds", type=float, default=2.0, help="of measuring for each provider and case")
    parser.add_argument("--limit", type=float, default=5.0, help="skip cases of more seconds a call, at the ceiling")
    parser.add_argument("--threads", type=int, help="of torch (default: its own)")
    parser.add_argument("--out", type=Path, help="folder for results (default: kernels-DEVICE here)")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.ops) - set(OPS):
        parser.error(f"no such op: {', '.join(sorted(unknown))}")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    settings = Settings(
        device=chosen.device,
        n=tuple(chosen.n),
        k=tuple(chosen.k),
        d=tuple(chosen.d),
        providers=tuple(chosen.providers),
        seconds=chosen.seconds,
        limit=chosen.limit,
    )
    here = machine(settings.device)
    folder = chosen.out or Path("kernels-" + re.sub(r"\W+", "-", here.device).strip("-").lower())
    wrong = False
    for op in chosen.ops or OPS:
        limits = ceilings(settings.device)
        print(f"{op} on {here.device}")
        rows = []
        for case in OPS[op](settings):
            for row in measure(case, settings, limits):
                rows.append(row)
                wrong |= row.note.startswith("WRONG") and row.provider.startswith("spintok")
                figures = row.note or f"{row.ms_min:10.3f} ms {row.tflops:9.3f} TFLOP/s {row.gb_s:9.2f} GB/s"
                print(f"  {row.mode:4} {row.shape:24} {row.provider:26} {figures}", flush=True)
        # Once before and once after: on a shared machine one of them alone may be far too low.
        limits = limits.best(ceilings(settings.device))
        rows = [limits.rate(row) for row in rows]
        report.write(folder, op, rows, here, limits)
    print(f"results in {folder}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
