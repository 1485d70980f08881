"""Measure the compiled operations on this machine: agreement with the truth first, then time, memory and roofline."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import assign, loss, perturb, report
from .compare import compare
from .devices import Device, device
from .harness import Op, Row, Settings, SkipError
from .machine import ceilings, machine
from .measure import measure
from .ncu import profile

__all__ = ["OPS", "main"]

OPS: dict[str, Op] = {"assign": assign.cases, "loss": loss.cases, "perturb": perturb.cases}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if a provider of ours disagrees with the truth or is slower than in the saved run."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="spintok bench kernels", description=__doc__)
    parser.add_argument("ops", nargs="*", metavar="op", help=f"operations, of {', '.join(OPS)} (default: all)")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default, help="default: a GPU if there is one")
    parser.add_argument("--n", type=int, nargs="+", default=[1500, 25_600, 200_000], help="rows (frames)")
    parser.add_argument("--k", type=int, nargs="+", default=[500], help="codewords")
    parser.add_argument("--d", type=int, nargs="+", default=[256], help="dimensions")
    parser.add_argument("--batch", type=int, nargs="+", default=[24], help="utterances, for perturb")
    parser.add_argument("--samples", type=int, nargs="+", default=[80_000], help="samples of each, for perturb")
    parser.add_argument("--providers", nargs="+", default=[], help="run only providers with one of these words")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to measure each provider of a case")
    parser.add_argument("--limit", type=float, default=5.0, help="skip cases with longer calls, in seconds")
    parser.add_argument("--threads", type=int, help="threads of torch (default: its own choice)")
    parser.add_argument("--out", type=Path, help="folder for the results (default: kernels-DEVICE)")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="compare with the results in this folder")
    parser.add_argument("--ncu", action="store_true", help="write a report of Nsight Compute in place of timing")
    parser.add_argument("--once", action="store_true", help="call every provider once and measure nothing")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.ops) - set(OPS):
        parser.error(f"no such operation: {', '.join(sorted(unknown))}")
    if min(*chosen.n, *chosen.k, *chosen.d, *chosen.batch, *chosen.samples) < 1:
        parser.error("sizes must be at least 1")
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    settings = Settings(
        device=chosen.device,
        n=tuple(chosen.n),
        k=tuple(chosen.k),
        d=tuple(chosen.d),
        batch=tuple(chosen.batch),
        samples=tuple(chosen.samples),
        providers=tuple(chosen.providers),
        seconds=chosen.seconds,
        limit=chosen.limit,
    )
    ops = {name: OPS[name] for name in chosen.ops or OPS}
    if chosen.once:
        return _once(ops, settings)
    here = machine(settings.device)
    folder = chosen.out or Path("kernels-" + re.sub(r"\W+", "-", here.device).strip("-").lower())
    try:
        if chosen.ncu:
            print(f"report in {profile([x for x in arguments if x != '--ncu'], folder)}")
            return 0
        saved = report.read(chosen.against) if chosen.against else []
    except ValueError as error:
        parser.error(str(error))
    rows = _run(ops, settings, folder, device(settings.device))
    print(f"results in {folder}")
    wrong = any(row.note.startswith("WRONG") and row.provider.startswith("spintok") for row in rows)
    changes = compare(rows, saved)
    if chosen.against:
        print(f"against {chosen.against}: {len(changes)} measurements in both")
        for change in changes:
            print(f"  {change}")
    return int(wrong or any(change.regression and change.row.provider.startswith("spintok") for change in changes))


def _run(ops: dict[str, Op], settings: Settings, folder: Path, where: Device) -> list[Row]:
    everything = []
    here = machine(settings.device)
    for name, cases in ops.items():
        # Before and after: on a shared machine one of the two may be far too low.
        limits = ceilings(where)
        limits = limits.best(ceilings(where))
        print(f"{name} on {here.device}")
        rows = []
        for case in cases(settings):
            for row in measure(case, settings, where, limits):
                rows.append(row)
                print(f"  {row.mode:16} {row.shape:24} {row.provider:34} {_figures(row)}", flush=True)
        report.write(folder, name, rows, here, limits)
        everything += rows
    return everything


def _figures(row: Row) -> str:
    if row.ms is None or row.percent_of_roofline is None:
        return row.note
    wrong = "" if row.rows_wrong is None else f"{row.rows_wrong} of {row.rows_checked} rows wrong, "
    throttled = f", THROTTLED ({row.throttled})" if row.throttled else ""
    return f"{wrong}{row.ms:.3f} ms ({row.ms_p20:.3f} to {row.ms_p80:.3f}), {row.percent_of_roofline:.0f} %{throttled}"


def _once(ops: dict[str, Op], settings: Settings) -> int:
    for cases in ops.values():
        for case in cases(settings):
            for provider in case.build():
                if settings.wants(provider.name):
                    try:
                        with provider.context():
                            provider.setup()()
                    except SkipError as reason:
                        print(f"{provider.name}: skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
