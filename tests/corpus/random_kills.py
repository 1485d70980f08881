"""Kill ``spintok encode`` at random moments and compare what a resume leaves with an undisturbed run.

    python -m tests.corpus.random_kills --kills 100
    python -m tests.corpus.random_kills --kills 100 --files 3 --long 1200 --tokenizer dc-spin-10m-en --threads 2

For each format a corpus of noise is encoded by processes that are killed (SIGKILL) after a random time, the runs that
resume included, until one ends by itself. Every file it leaves must have the bytes of an undisturbed run. Work done
again is measured in seconds of wall time: what a process did between the last recording, or part of a long one, that it
finished and its end, and whatever is finished a second time, with the reading of a long recording up to its place.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from forks import ended, fork

import spintok
from spintok.corpus import FeatureOptions, Options, encode_corpus, encode_features
from spintok.corpus.token_formats import load_pyarrow
from spintok.data.audio import Recording
from spintok.data.manifest import scan
from spintok.tokenizer import Tokenizer
from tests.corpus.jobs import FORMATS, contents

_KILLS_PER_FOLDER = 8


@dataclass
class Outcome:
    """What the kills of one format did.

    Attributes:
        kills: processes killed.
        redone: for each kill, the seconds of work that it caused to be done again.
        different: files that differ from the undisturbed run, or are missing, or are too many.
    """

    redone: list[float]
    different: list[str]


def make_audio(folder: Path, files: int, seconds: float, long: float = 0.0, seed: int = 0) -> Path:
    """Files of noise of random lengths up to ``seconds``, all different, so that a length names its file.

    ``long`` seconds are the length of one more.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lengths = rng.permutation(int(seconds * 16_000))[:files] + 400
    for i, length in enumerate(lengths.tolist()):
        soundfile.write(folder / f"{i:04d}.wav", rng.standard_normal(length) * 0.1, 16_000)
    if long:
        soundfile.write(folder / "0001-long.wav", rng.standard_normal(int(16_000 * long)) * 0.1, 16_000)
    return folder


def random_kills(
    tokenizer: Tokenizer, audio: Path, work: Path, format: str, kills: int, shard_size: int, threads: int = 1
) -> Outcome:
    """Encode ``audio`` until ``kills`` processes were killed, and compare each folder that was completed."""
    rng = random.Random(0)
    log = work / "log"
    log.parent.mkdir(parents=True)
    job = partial(_encode, tokenizer, audio, log=log, format=format, shard_size=shard_size, threads=threads)
    started = time.monotonic()
    ended(fork(partial(job, work / "clean")))
    whole = time.monotonic() - started
    clean = contents(work / "clean")
    outcome = Outcome([], [])
    attempt = 0
    while len(outcome.redone) < kills:
        attempt += 1
        output = work / f"killed-{attempt}"
        log.write_bytes(b"")
        ends: list[float] = []
        while True:
            child = fork(partial(job, output))
            # Long enough that some runs get far, short enough that each folder sees several kills.
            if len(ends) < _KILLS_PER_FOLDER and len(outcome.redone) + len(ends) < kills:
                time.sleep(rng.uniform(0.0, 0.4 * whole))
                os.kill(child, signal.SIGKILL)
            status = ended(child)
            if status != -signal.SIGKILL:
                break
            ends.append(time.monotonic())
        outcome.redone += _redone(log, ends)
        if status != 0:
            outcome.different.append(f"attempt {attempt}: exit code {status}")
        found = contents(output)
        outcome.different += [
            f"attempt {attempt}: {name}" for name in clean.keys() | found.keys() if clean.get(name) != found.get(name)
        ]
    return outcome


def _encode(
    tokenizer: Tokenizer, audio: Path, output: Path, log: Path, format: str, shard_size: int, threads: int
) -> None:
    """Encode, with a line in ``log`` for what is finished: its name, the seconds that it took, and the time."""
    # The first operation after a fork must not come from several threads.
    torch.zeros(1) + 1
    torch.set_num_threads(threads)
    last = time.monotonic()
    with log.open("a") as lines:

        def write(name: str) -> None:
            nonlocal last
            now = time.monotonic()
            lines.write(json.dumps([name, now - last, now]) + "\n")
            lines.flush()
            last = now

        def recordings(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(given: Sequence[Recording], *rest: Any, **options: Any) -> Any:
                for index, tokens in call(given, *rest, **options):
                    write(f"{len(given[index].waveform)} samples")
                    yield index, tokens

            return wrapper

        def features(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(given: Sequence[Recording], *rest: Any, **options: Any) -> Any:
                yield from call(given, *rest, **options)
                write(f"{len(given[0].waveform)} samples")

            return wrapper

        def parts(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(recording: Recording, rest: Any, state: bytes | None) -> Any:
                # A process that begins the recording, or reads up to its place, does again what one before it did.
                write("listening")
                for number, part in enumerate(call(recording, rest, state)):
                    write(f"up to {part.samples}" if number else "listening")
                    yield part

            return wrapper

        write("start")
        if format in ("jsonl", "parquet", "km"):
            tokenizer.iter_recordings = recordings(tokenizer.iter_recordings)
            tokenizer.iter_codes = parts(tokenizer.iter_codes)
            options = Options(format=format, dedup=format != "km", shard_size=shard_size)
            encode_corpus(tokenizer, scan(audio), output, options)
        else:
            tokenizer.iter_features = features(tokenizer.iter_features)
            tokenizer.iter_parts = parts(tokenizer.iter_parts)
            kind = format.removeprefix("features-")
            encode_features(tokenizer, scan(audio), output, FeatureOptions(layer=0, format=kind, shard_size=shard_size))


def _redone(log: Path, ends: list[float]) -> list[float]:
    """The seconds of work lost by each kill; ``ends`` are the times of the kills."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    seen: set[str] = set()
    redone: list[float] = []
    for begin, end in pairwise([0.0, *ends, float("inf")]):
        run = [(name, seconds, stamp) for name, seconds, stamp in lines if begin < stamp <= end]
        if redone:
            redone[-1] += sum(seconds for name, seconds, _ in run if name in seen)
        seen |= {name for name, _, _ in run} - {"start"}
        if end < float("inf"):
            redone.append(end - run[-1][2] if run else 0.0)
    return redone


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="processes to kill per format")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20.0, help="the longest file")
    parser.add_argument("--long", type=float, default=0.0, help="seconds of one more file")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process")
    parser.add_argument("--shard-size", type=int, default=150)
    parser.add_argument("--at-most", type=float, default=5.0, help="seconds that a kill may cause to be done again")
    parser.add_argument("--tokenizer", default="mfcc-kmeans-100")
    options = parser.parse_args(argv)
    # Forked processes must not inherit threads.
    torch.set_num_threads(1)
    tokenizer = spintok.load(options.tokenizer)
    if any("parquet" in format for format in options.formats):
        # Or every child would spend its time on importing it.
        load_pyarrow()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        audio = make_audio(Path(folder, "audio"), options.files, options.seconds, options.long)
        for format in options.formats:
            work = Path(folder, format)
            outcome = random_kills(tokenizer, audio, work, format, options.kills, options.shard_size, options.threads)
            failed |= bool(outcome.different) or max(outcome.redone) > options.at_most
            again = f"median {statistics.median(outcome.redone):.2f}, at most {max(outcome.redone):.2f}"
            kills, different = len(outcome.redone), len(outcome.different)
            print(f"{format:17} {kills} kills, {different} files differ, seconds done again: {again}", flush=True)
            for name in outcome.different[:10]:
                print(f"  {name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
