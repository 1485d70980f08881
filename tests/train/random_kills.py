"""Kill ``spintok train`` at random moments and compare what the resumes leave with an undisturbed run.

    PYTHONPATH=.:tests python -m tests.train.random_kills --kills 100

Each stage trains a small model in processes that get SIGKILL or SIGTERM after a random time, those that resume
included, until one ends by itself. Every file that it leaves must have the bytes of an undisturbed run. Work done twice
is measured in seconds of wall time, from the reports of progress: a step, a labelled file or a pass that an earlier
process had finished counts as long as it took again, the time to start included.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from forks import ended, fork
from small_models import save_tiny

from spintok.train.distributed import Distributed
from spintok.train.recipe_file import read_recipe
from spintok.train.run import TrainingData, train
from tests.train.folders import contents

_SPEECH = Path(__file__).parents[1] / "speech"
_KILLS_PER_FOLDER = 8
_STOPPED = 130

_TEXTS = {"anna_tokens": "speech becomes tokens", "beth_river": "the river runs", "eve_bus": "nine people"}
_BOOK = '[[codebooks]]\nname = "primary"\nsize = 6\nwidth = 4\n'
_LOOP = """
[data]
seconds = 4
max_seconds = 1
workers = 0
[optimizer]
steps = {steps}
warmup = 1
[loop]
log_every = 5
"""
STAGES = {
    "pretrain": 'stage = "pretrain"\nname = "t"\nstart = "{tiny}"\nlabels = "mfcc-kmeans-100"\nwidth = 8\n' + _LOOP,
    # A transcript needs its whole utterance.
    "ctc": 'stage = "ctc"\nname = "t"\nstart = "{tiny}"\ntranscripts = "{texts}"\nwidth = 8\n'
    + _LOOP.replace("max_seconds = 1", "max_seconds = 4"),
    "spin": 'stage = "spin"\nname = "t"\nstart = "{tiny}"\n' + _BOOK + _LOOP,
    "spin-frozen": 'stage = "spin"\nname = "t"\nstart = "{tiny}"\n' + _BOOK + "[views]\nvariants = 2\n" + _LOOP,
    "spin-labels": 'stage = "spin"\nname = "t"\nstart = "{tiny}"\n'
    + _BOOK
    + '[labels]\ntokenizer = "mfcc-kmeans-100"\nsource = "codes"\n'
    + _LOOP,
    "kmeans": 'stage = "kmeans"\nname = "t"\nencoder = "{tiny}"\nlayer = 2\n'
    "[kmeans]\nsize = 50\nsample = 100\niterations = {steps}\ntolerance = 0\n",
}
"""Recipes by name. spin-labels also validates."""


@dataclass
class Outcome:
    """What the kills of one stage did.

    Attributes:
        redone: for each kill, the seconds of work that were done again after it. A process that was killed before it
            finished anything new leaves its share to the next.
        wrong: files that differ from the undisturbed run, are missing, or are too many; processes that failed.
    """

    redone: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def make_speech(folder: Path, copies: int) -> Path:
    """The sample speech several times, each time under other names, and ``texts`` beside it."""
    lines = []
    for copy in range(copies):
        (folder / f"speech/{copy}").mkdir(parents=True)
        for path in _SPEECH.glob("*.flac"):
            (folder / f"speech/{copy}/{path.name}").symlink_to(path)
        lines += [f"{copy}/{name} {text}\n" for name, text in _TEXTS.items()]
    (folder / "texts").write_text("".join(lines))
    return folder / "speech"


def random_kills(stage: str, work: Path, kills: int, steps: int, copies: int, minutes: float | None) -> Outcome:
    """Train ``stage`` until ``kills`` processes were killed, and compare each folder that was completed."""
    rng = random.Random(stage)
    recipe, log = work / f"{stage}.toml", work / "log"
    speech = make_speech(work, copies)
    recipe.write_text(STAGES[stage].format(tiny=save_tiny(work / "tiny"), texts=work / "texts", steps=steps))
    settings = [] if minutes is None or stage == "kmeans" else [f"loop.checkpoint_minutes={minutes}"]
    if stage == "spin-labels":
        settings += [f"loop.check_every={max(1, steps // 4)}", "loop.check_utterances=1"]
    data = TrainingData(speech, dev=_SPEECH if stage == "spin-labels" else None)
    job = partial(_train, recipe, settings, data, log)
    # Forked processes share what this one has imported, or each would spend its time on that.
    shorter = "kmeans.iterations=1" if stage == "kmeans" else "optimizer.steps=2"
    _train(recipe, [*settings, shorter], data, log, work / "warm-up")
    started = time.monotonic()
    ended(fork(partial(job, work / "clean")))
    whole = time.monotonic() - started
    clean = contents(work / "clean")
    outcome, attempt = Outcome(), 0
    while len(outcome.redone) < kills:
        attempt += 1
        output = work / f"killed-{attempt}"
        done: set[tuple[str, float]] = set()
        processes, again = 0, 0.0
        while True:
            log.write_bytes(b"")
            child = fork(partial(job, output))
            # Long enough that some runs get far, short enough that each folder sees several kills.
            if processes < _KILLS_PER_FOLDER and len(outcome.redone) + bool(processes) < kills:
                time.sleep(rng.uniform(0.0, 0.4 * whole))
                os.kill(child, rng.choice((signal.SIGKILL, signal.SIGTERM)))
            status = ended(child)
            units = _units(log)
            again += sum(seconds for unit, seconds in units.items() if unit in done)
            if processes:
                outcome.redone.append(again)
            if units.keys() - done:
                again = 0.0
            done |= units.keys()
            processes += 1
            if status not in (_STOPPED, -signal.SIGKILL, -signal.SIGTERM):
                break
        if status != 0:
            outcome.wrong.append(f"attempt {attempt}: exit code {status}")
        found = contents(output)
        outcome.wrong += [
            f"attempt {attempt}: {name}" for name in clean.keys() | found.keys() if clean.get(name) != found.get(name)
        ]
    return outcome


def _train(recipe: Path, settings: list[str], data: TrainingData, log: Path, output: Path) -> int:
    """Train, with a line in ``log`` for each report of progress: the task, its number, the seconds since the last."""
    last = time.monotonic()
    with log.open("a") as lines:

        def report(task: str, done: float, total: float, note: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            lines.write(json.dumps([task, done, now - last]) + "\n")
            lines.flush()
            last = now

        try:
            train(read_recipe(recipe, settings), data, output, Distributed(torch.device("cpu")), report)
        except KeyboardInterrupt:
            return _STOPPED
    return 0


def _units(log: Path) -> dict[tuple[str, float], float]:
    """The seconds of each unit of work that a process finished; the last line may be incomplete."""
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return {(task, number): seconds for task, number, seconds in lines}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="processes to kill per stage")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--steps", type=int, default=500, help="steps of each run, or passes of K-means")
    parser.add_argument("--copies", type=int, default=50, help="copies of the sample speech to train on")
    parser.add_argument("--checkpoint-minutes", type=float, help="fixed, in place of as often as the cost permits")
    options = parser.parse_args(argv)
    # Forked processes must not inherit threads.
    torch.set_num_threads(1)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for stage in options.stages:
            work = Path(folder, stage)
            work.mkdir()
            outcome = random_kills(
                stage, work, options.kills, options.steps, options.copies, options.checkpoint_minutes
            )
            failed |= bool(outcome.wrong) or max(outcome.redone) > 5
            again = f"median {statistics.median(outcome.redone):.2f}, at most {max(outcome.redone):.2f}"
            kills, wrong = len(outcome.redone), len(outcome.wrong)
            print(f"{stage:12} {kills} kills, {wrong} files differ, seconds done again: {again}", flush=True)
            for name in outcome.wrong[:10]:
                print(f"  {name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
