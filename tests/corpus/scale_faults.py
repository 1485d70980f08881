"""Disturb workers that share a corpus, and compare what they leave with an undisturbed run.

    PYTHONPATH=.:tests python -m tests.corpus.scale_faults --engine lease --runs 100
    PYTHONPATH=.:tests python -m tests.corpus.scale_faults --engine ray --runs 20
    PYTHONPATH=.:tests python -m tests.corpus.scale_faults --runs 20 --mounts /mnt/a /mnt/b

With ``--mounts``, workers reach the output in turn by several mounts of one folder, as different hosts do.
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
from contextlib import suppress
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from forks import fork
from voices import mfcc_tokenizer

from spintok.cli.exit_codes import USAGE
from spintok.corpus import CorpusError, Options, encode_corpus, read_corpus
from spintok.corpus.cluster.leases import Leases
from spintok.corpus.cluster.store import FolderStore
from spintok.corpus.engines.ray import encode_on_ray
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
        where = getattr(error, "filename", "")
        print(f"worker with {fault or 'no'} fault: {error!r} {where}", file=sys.stderr, flush=True)
        return USAGE


def disturb(
    tokenizer: Tokenizer, utterances: list[Utterance], outputs: Sequence[Path], seed: int
) -> tuple[list[str], list[str]]:
    """Run workers with faults; the faults, and what was wrong with the exit codes."""
    output = outputs[0]
    rng = random.Random(seed)
    faults = [rng.choice(FAULTS) for _ in range(rng.randint(1, 3))]
    own = [fault for fault in faults if fault in ("clock", "disk full")]
    children = {}
    for number in range(rng.randint(2, 4)):
        fault = own[number] if number < len(own) else ""
        mounted = outputs[number % len(outputs)]
        children[fork(partial(work, tokenizer, utterances, mounted, fault, seed + number))] = fault
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
    mounts: Sequence[Path], tokenizer: Tokenizer, utterances: list[Utterance], output: Path, seed: int
) -> tuple[list[str], list[str]]:
    """A disturbed run and the worker that ends it."""
    outputs = [mount / output.relative_to(mounts[0]) for mount in mounts]
    faults, wrong = disturb(tokenizer, utterances, outputs, seed)
    last = os.waitstatus_to_exitcode(os.waitpid(fork(partial(work, tokenizer, utterances, outputs[-1])), 0)[1])
    return faults, wrong if last == 0 else [*wrong, f"the last worker ended with {last}"]


RAY_FAULTS = ("kill a worker", "kill the driver", "lose a node")


class RayCluster:
    """A Ray of a head and a node with two cores, in a process of its own: its threads must not meet a fork."""

    def __init__(self) -> None:
        self._pipe, other = Pipe()
        self._process = fork(partial(self._serve, other))
        self.address: str = self._pipe.recv()
        self._node: int = self._pipe.recv()

    def lose_node(self) -> None:
        """Kill the node with all its processes, and start another."""
        self._pipe.send("lose")
        self._node = self._pipe.recv()

    def workers(self) -> list[int]:
        """The processes on the node that encode."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self._node and (folder / "cmdline").read_bytes().startswith(b"ray::_work"):
                    found.append(int(folder.name))
        return found

    def close(self) -> None:
        """Stop all processes."""
        self._pipe.send("stop")
        os.waitpid(self._process, 0)

    @staticmethod
    def _serve(pipe: Connection) -> int:
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        pipe.send(cluster.address)

        def add() -> Any:
            node = cluster.add_node(num_cpus=2)
            pipe.send(node.all_processes["raylet"][0].process.pid)
            return node

        node = add()
        while pipe.recv() == "lose":
            cluster.remove_node(node, allow_graceful=False)
            node = add()
        cluster.shutdown()
        return 0


def drive(address: str, tokenizer: Tokenizer, utterances: list[Utterance], output: Path) -> int:
    """Encode on Ray; 0 when all is encoded."""
    os.environ["RAY_ADDRESS"] = address
    slowly(tokenizer, 0.1)
    options = Options(shard_size=3, lease_seconds=LEASE_SECONDS)
    try:
        return int(bool(encode_on_ray(encode_corpus, tokenizer, utterances, output, options, workers=2).failures))
    except (OSError, CorpusError) as error:
        print(f"driver: {error!r}", file=sys.stderr, flush=True)
        return USAGE


def ray_run(
    cluster: RayCluster, tokenizer: Tokenizer, utterances: list[Utterance], output: Path, seed: int
) -> tuple[list[str], list[str]]:
    """A run on Ray that is disturbed while its workers are busy, and one that ends it."""
    rng = random.Random(seed)
    faults = [rng.choice(RAY_FAULTS) for _ in range(rng.randint(1, 3))]
    job = partial(drive, cluster.address, tokenizer, utterances, output)
    driver, met, killed = fork(job), [], False
    for fault in faults:
        give_up = time.monotonic() + 60.0
        while not cluster.workers() and not ended(driver) and time.monotonic() < give_up:
            time.sleep(0.05)
        time.sleep(rng.uniform(0.0, 1.5))
        if ended(driver):
            break
        match fault:
            case "kill a worker":
                for worker in rng.sample(cluster.workers(), min(len(cluster.workers()), 1)):
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGKILL)
                        met.append(fault)
            case "lose a node":
                cluster.lose_node()
                met.append(fault)
            case "kill the driver":
                os.kill(driver, signal.SIGKILL)
                met.append(fault)
                killed = True
                break
    wrong = []
    status = os.waitstatus_to_exitcode(os.waitpid(driver, 0)[1])
    if status != (-signal.SIGKILL if killed else 0):
        wrong.append(f"the driver ended with {status}")
    last = os.waitstatus_to_exitcode(os.waitpid(fork(job), 0)[1])
    return met, wrong if last == 0 else [*wrong, f"the last driver ended with {last}"]


def ended(process: int) -> bool:
    """Whether a child has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


Run = Callable[[Tokenizer, list[Utterance], Path, int], tuple[list[str], list[str]]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("lease", "ray"), default="lease")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mounts", type=Path, nargs="+", help="paths of one folder, for the engine lease")
    options = parser.parse_args(argv)
    if options.mounts and options.engine != "lease":
        parser.error("--mounts needs --engine lease")
    # Forked processes must not inherit threads.
    torch.set_num_threads(1)
    tokenizer = mfcc_tokenizer()
    cluster = RayCluster() if options.engine == "ray" else None
    met: Counter[str] = Counter()
    lost = twice = different = bad = 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        tempfile.TemporaryDirectory(dir=options.mounts[0] if options.mounts else None) as outputs,
    ):
        run: Run = partial(lease_run, options.mounts or [Path(outputs)])
        if cluster is not None:
            run = partial(ray_run, cluster)
        audio = Path(scratch, "audio")
        audio.mkdir()
        utterances = [make_recording(audio, number) for number in range(20)]
        # Forked, as all runs are.
        clean = Path(scratch, "clean")
        os.waitpid(fork(lambda: bool(encode_corpus(tokenizer, utterances, clean, Options(shard_size=3)).failures)), 0)
        for seed in range(options.seed, options.seed + options.runs):
            output = Path(outputs, f"run-{seed}")
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
    if cluster is not None:
        cluster.close()
    faults = ", ".join(f"{count} x {fault}" for fault, count in met.most_common())
    print(f"{options.engine}: {options.runs} runs with {faults}")
    print(f"{lost} utterances lost, {twice} twice, {different} files differ, {bad} wrong exit codes")
    return int(bool(lost or twice or different or bad))


if __name__ == "__main__":
    sys.exit(main())
