"""How encoding scales: real workers on this machine, and many on a simulated clock.

    python -m benchmarks.scale SPEECH                      1, 2 and 4 workers against one process without leases
    python -m benchmarks.scale --simulate --workers 1000   10 million hours with failures and slow workers

The workers of the first are ``spintok encode --shared`` on one folder; their shards are compared with those of the one
process before times are. Rounds alternate between the numbers of workers. Each process computes on one thread, so
efficiency is the speed over that of as many single processes as there are workers or, if fewer, cores.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.scale_simulation import Cluster, simulate


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", nargs="?", help="a folder or manifest to encode")
    parser.add_argument("--tokenizer", default="mfcc-kmeans-100")
    parser.add_argument("--shard-size", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--shards", type=int, default=50_000)
    parser.add_argument("--hours", type=float, default=10e6, help="hours of audio")
    parser.add_argument("--speed", type=float, default=1000.0, help="seconds of audio a second, of one worker")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.simulate:
        _simulate(options)
    elif options.speech is None:
        parser.error("name a folder or manifest to encode, or add --simulate")
    else:
        _measure(options.speech, options.tokenizer, options.shard_size, options.rounds)
    return 0


def _simulate(options: argparse.Namespace) -> None:
    seconds = options.hours * 3600 / options.speed / options.shards
    for what, cluster in (
        ("nothing goes wrong", {"between_failures": 1e12, "slow_share": 0.0}),
        ("failures and slow workers", {}),
    ):
        outcome = simulate(
            Cluster(workers=options.workers, shards=options.shards, shard_seconds=seconds, seed=options.seed, **cluster)
        )
        print(
            f"{what}: {options.hours:,.0f} h of audio in {options.shards:,} shards of {seconds:,.0f} s by "
            f"{options.workers:,} workers: {outcome.seconds / 3600:.2f} h, efficiency {outcome.efficiency:.1%}; "
            f"{outcome.failures} failures, {outcome.taken_over} shards taken over, {outcome.twice} finished twice, "
            f"{outcome.looks:,} lists of leases read",
            flush=True,
        )


def _measure(speech: str, tokenizer: str, shard_size: int, rounds: int) -> None:
    times: dict[int, list[float]] = {0: [], 1: [], 2: [], 4: []}
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "spintok", "encode", speech]
        options = ["-t", tokenizer, "--device", "cpu", "--shard-size", str(shard_size), "-q"]
        for number in range(rounds):
            for workers, found in times.items():
                output = Path(scratch, f"{workers}-{number}")
                shared = ["--shared"] if workers else []
                found.append(_run([*command, str(output), *options, *shared], max(workers, 1)))
                if _shards(output) != _shards(Path(scratch, "0-0")):
                    raise SystemExit(f"{workers} workers made other shards than one process")
    alone = statistics.median(times[0])
    print(f"one process: {alone:.1f} s")
    for workers in (1, 2, 4):
        seconds = statistics.median(times[workers])
        ideal = alone / min(workers, os.cpu_count() or 1)
        speed, efficiency = alone / seconds, ideal / seconds
        print(f"{workers} shared workers: {seconds:.1f} s, {speed:.2f} x one process, efficiency {efficiency:.0%}")


def _run(command: Sequence[str], count: int) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.monotonic()
    workers = [subprocess.Popen(command, env=environment) for _ in range(count)]
    if any(worker.wait() for worker in workers):
        raise SystemExit("a worker failed")
    return time.monotonic() - started


def _shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("tokens-*")}


if __name__ == "__main__":
    raise SystemExit(main())
