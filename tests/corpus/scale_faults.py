"""Disturb workers that share a corpus, and compare what they leave with an undisturbed run.

    PYTHONPATH=.:tests python -m tests.corpus.scale_faults --engine lease --runs 100

Each run has its own seed, which chooses the number of workers, the faults and their moments. After the faults one more
worker ends the run. Nothing may be lost, nothing may be there twice, every file must have the bytes of an undisturbed
run, and a worker that could not do its work must not report success.
"""

import argparse
import errno
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from forks import fork
from voices import mfcc_tokenizer

from spintok.cli.exit_codes import USAGE
from spintok.corpus import CorpusError, Options, encode_corpus, read_corpus
from spintok.corpus.cluster.leases import Leases
from spintok.corpus.cluster.store import FolderStore
from spintok.data.manifest import Utterance
from spintok.tokenizer import Tokenizer
from tests.corpus.jobs import make_recording

FAULTS = ("kill", "kill all", "suspend", "clock", "disk full", "vanish")
LEASE_SECONDS = 0.6


def shards(folder: Path) -> dict[str, bytes]:
    """All files but those of work in progress."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def slowly(tokenizer: Tokenizer, seconds: float) -> None:
    """Make each utterance take a while, or no fault would meet one."""
    encode = tokenizer.iter_recordings

    def slow(*arguments: object, **options: object) -> object:
        time.sleep(seconds)
        return encode(*arguments, **options)

    tokenizer.iter_recordings = slow


def work(tokenizer: Tokenizer, utterances: list[Utterance], output: Path, fault: str = "", seed: int = 0) -> int:
    """One worker, which meets faults of its own; 0 when all is encoded."""
    rng = random.Random(seed)
    slowly(tokenizer, 0.02)
    if fault == "clock":
        start = time.monotonic()
        jumps = [(rng.uniform(0.0, 1.0), rng.choice((-1000.0, 1000.0, 5.0))) for _ in range(3)]

        def clock() -> float:
            now = time.monotonic()
            return now + sum(jump for at, jump in jumps if now - start > at)

        Leases.__init__.__kwdefaults__["clock"] = clock
    if fault == "disk full":
        publish, at = FolderStore.publish, rng.randrange(6)
        calls = iter(range(10**6))

        def full(store: FolderStore, path: Path) -> None:
            if next(calls) == at:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            publish(store, path)

        FolderStore.publish = full
    options = Options(shard_size=3, shared=True, lease_seconds=LEASE_SECONDS)
    try:
        return int(bool(encode_corpus(tokenizer, utterances, output, options).failures))
    except (OSError, CorpusError) as error:
        # What the command line turns into one line.
        print(f"worker with {fault or 'no'} fault: {error!r}", file=sys.stderr, flush=True)
        return USAGE


def disturb(tokenizer: Tokenizer, utterances: list[Utterance], output: Path, seed: int) -> tuple[list[str], list[str]]:
    """Run workers with faults; the faults, and what was wrong with the exit codes."""
    rng = random.Random(seed)
    faults = [rng.choice(FAULTS) for _ in range(rng.randint(1, 3))]
    own = [fault for fault in faults if fault in ("clock", "disk full")]
    children = {}
    for number in range(rng.randint(2, 4)):
        fault = own[number] if number < len(own) else ""
        children[fork(partial(work, tokenizer, utterances, output, fault, seed + number))] = fault
    excused = set()
    for number, fault in enumerate(faults):
        time.sleep(rng.uniform(0.0, 0.5))
        alive = list(children)
        match fault:
            case "kill" | "kill all":
                for child in alive[: None if fault == "kill all" else 1]:
                    os.kill(child, signal.SIGKILL)
                    excused.add(child)
            case "suspend":
                os.kill(alive[-1], signal.SIGSTOP)
                time.sleep(2 * LEASE_SECONDS)
                os.kill(alive[-1], signal.SIGCONT)
            case "vanish":
                if output.exists():
                    away = output.with_name(f"{output.name}-away-{number}")
                    output.rename(away)
                    time.sleep(0.1)
                    if not output.exists():
                        away.rename(output)
                    excused |= children.keys()
    wrong = []
    for child, fault in children.items():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status not in (0, USAGE, -signal.SIGKILL) or (status != 0 and child not in excused and fault != "disk full"):
            wrong.append(f"exit code {status} with {fault or 'no'} fault")
        if status == 0 and not (output / "stats.json").exists():
            wrong.append("exit code 0 before the end")
    return faults, wrong


def lease_run(
    tokenizer: Tokenizer, utterances: list[Utterance], output: Path, seed: int
) -> tuple[list[str], list[str]]:
    """A disturbed run and the worker that ends it."""
    faults, wrong = disturb(tokenizer, utterances, output, seed)
    last = os.waitstatus_to_exitcode(os.waitpid(fork(partial(work, tokenizer, utterances, output)), 0)[1])
    return faults, wrong if last == 0 else [*wrong, f"the last worker ended with {last}"]


Run = Callable[[Tokenizer, list[Utterance], Path, int], tuple[list[str], list[str]]]
ENGINES: dict[str, Run] = {"lease": lease_run}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=list(ENGINES), default="lease")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    # Forked processes must not inherit threads.
    torch.set_num_threads(1)
    tokenizer = mfcc_tokenizer()
    run = ENGINES[options.engine]
    met: Counter[str] = Counter()
    lost = twice = different = bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        audio = Path(scratch, "audio")
        audio.mkdir()
        utterances = [make_recording(audio, number) for number in range(20)]
        # Forked, as all runs are.
        clean = Path(scratch, "clean")
        os.waitpid(fork(lambda: bool(encode_corpus(tokenizer, utterances, clean, Options(shard_size=3)).failures)), 0)
        for seed in range(options.seed, options.seed + options.runs):
            output = Path(scratch, f"run-{seed}")
            output.mkdir()
            faults, wrong = run(tokenizer, utterances, output, 1000 * seed)
            met.update(faults)
            keys = Counter(record.key for record in read_corpus(output)[1])
            lost += sum(keys[utterance.key] == 0 for utterance in utterances)
            twice += sum(count > 1 for count in keys.values())
            before, after = shards(clean), shards(output)
            names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            different += len(names)
            bad += len(wrong)
            if names or wrong:
                print(f"seed {seed}, {', '.join(faults)}: {', '.join([*names, *wrong])}", flush=True)
    faults = ", ".join(f"{count} x {fault}" for fault, count in met.most_common())
    print(f"{options.engine}: {options.runs} runs with {faults}")
    print(f"{lost} utterances lost, {twice} twice, {different} files differ, {bad} wrong exit codes")
    return int(bool(lost or twice or different or bad))


if __name__ == "__main__":
    sys.exit(main())
