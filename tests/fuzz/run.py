"""Damage files at random and read them: ``PYTHONPATH=.:tests python -m tests.fuzz.run --cases 20000``.

A case fails when the reader raises anything but one of spintok's own errors, takes longer than ``--seconds``, or makes
the process grow by more than ``--megabytes``. Cases are numbered: ``--target NAME --case N --seed S`` repeats one.
"""

import argparse
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import spintok
from tests.fuzz.mutations import mutate
from tests.fuzz.targets import TARGETS

__all__ = ["Sample", "run_case"]

_PACKAGE = Path(spintok.__file__).parent


class Sample:
    """A target's valid files, built once."""

    def __init__(self, name: str, folder: Path) -> None:
        self.target = TARGETS[name]
        self.name = name
        self.folder = folder
        folder.mkdir(parents=True)
        self.target.build(folder)
        self.target.read(folder)
        self.files = sorted(path for pattern in self.target.files for path in folder.glob(pattern) if path.is_file())

    def damaged(self, case: int, seed: int, output: Path) -> None:
        """Copy the sample to ``output`` with one of its files damaged; audio is copied alone."""
        rng = random.Random(f"{self.name} {seed} {case}")
        victim = rng.choice(self.files)
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()
        for path in [victim] if self.name == "audio" else self.folder.iterdir():
            if path.is_file():
                shutil.copyfile(path, output / path.name)
        (output / victim.name).write_bytes(mutate(victim.read_bytes(), rng, text=self.target.text))


def run_case(sample: Sample, case: int, seed: int, output: Path) -> str | None:
    """None when the reader accepts or refuses the case as it should, else what went wrong."""
    sample.damaged(case, seed, output)
    try:
        sample.target.read(output)
    except Exception as error:
        return _complaint(error)
    return None


def _complaint(error: Exception) -> str | None:
    """Why an error is not a user's error: its type, or that nobody in spintok raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{frame.filename}:{frame.lineno}"
    if not isinstance(error, ValueError | OSError):
        return f"{type(error).__name__} at {place}: {str(error)[:100]!r}"
    if not isinstance(error, FileNotFoundError) and _PACKAGE not in Path(frame.filename).parents:
        return f"{type(error).__name__} from outside spintok at {place}: {str(error)[:100]!r}"
    return None


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _work(pipe: Connection, names: list[str], seed: int, scratch: Path) -> None:
    samples = {name: Sample(name, scratch / f"sample-{name}") for name in names}
    pipe.send("ready")
    while (job := pipe.recv()) is not None:
        name, case = job
        before = _peak_bytes()
        found = run_case(samples[name], case, seed, scratch / "case")
        pipe.send((found, _peak_bytes() - before))


class _Worker:
    """A process that runs cases; one that hangs is killed and started anew."""

    def __init__(self, names: list[str], seed: int) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="spintok-fuzz-"))
        self.pipe, theirs = multiprocessing.Pipe()
        arguments = (theirs, names, seed, self.scratch)
        self.process = multiprocessing.get_context("spawn").Process(target=_work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def run(self, name: str, case: int, seconds: float) -> tuple[str | None, int]:
        """What went wrong, and by how many bytes the peak grew."""
        self.pipe.send((name, case))
        if not self.pipe.poll(seconds):
            return f"no answer within {seconds:.0f} s", 0
        try:
            found, grown = self.pipe.recv()
        except EOFError:
            self.process.join()
            return f"the process died, exit code {self.process.exitcode}", 0
        return found, grown

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=20_000, help="how many, spread over the targets (default 20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=list(TARGETS), action="append", help="only this; may be repeated")
    parser.add_argument("--case", type=int, help="only the case of this number")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long a case may take (default 20)")
    parser.add_argument("--megabytes", type=float, default=1024.0, help="by how much memory may grow (default 1024)")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    each = range(options.cases // len(names)) if options.case is None else [options.case]
    kinds: Counter[str] = Counter()
    worker = _Worker(names, options.seed)
    started = time.monotonic()
    done = 0
    for name in names:
        wrong = 0
        for case in each:
            found, grown = worker.run(name, case, options.seconds)
            if found is None and grown > options.megabytes * 1e6:
                found = f"memory grew by {grown / 1e6:.0f} MB"
            done += 1
            if found is None:
                continue
            wrong += 1
            kinds[f"{name}: {found.split(': ')[0]}"] += 1
            print(f"{name} case {case}: {found}", flush=True)
            if found.startswith(("no answer", "the process died", "memory")):
                worker.close()
                worker = _Worker(names, options.seed)
        print(f"{name}: {wrong} of {len(each)} cases wrong, {time.monotonic() - started:.0f} s", flush=True)
    worker.close()
    for kind, count in kinds.most_common():
        print(f"{count:6d}  {kind}")
    print(f"{done} cases, {kinds.total()} wrong")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
