"""Kill ``spintok encode`` at random moments and compare what a resume leaves with an undisturbed run.

    python -m tests.corpus.random_kills --kills 100

For each format a corpus of noise is encoded by processes that are killed (SIGKILL) after a random time, the runs that
resume included, until one ends by itself. Every file it leaves must have the bytes of an undisturbed run. Work done
twice is measured in seconds of wall time: an utterance that is encoded a second time counts as long as it took.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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
        most_redone: seconds of encoding that one kill caused to be done again, at most.
        different: files that differ from the undisturbed run, or are missing, or are too many.
    """

    kills: int
    most_redone: float
    different: list[str]


def make_audio(folder: Path, files: int, seconds: float, seed: int = 0) -> Path:
    """Files of noise of random lengths up to ``seconds``, all different, so that a length names its file."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lengths = rng.permutation(int(seconds * 16_000))[:files] + 400
    for i, length in enumerate(lengths.tolist()):
        soundfile.write(folder / f"{i:04d}.wav", rng.standard_normal(length) * 0.1, 16_000)
    return folder


def random_kills(tokenizer: Tokenizer, audio: Path, work: Path, format: str, kills: int, shard_size: int) -> Outcome:
    """Encode ``audio`` until ``kills`` processes were killed, and compare each folder that was completed."""
    rng = random.Random(0)
    log = work / "log"
    log.parent.mkdir(parents=True)
    job = partial(_encode, tokenizer, audio, log=log, format=format, shard_size=shard_size)
    started = time.monotonic()
    ended(fork(partial(job, work / "clean")))
    whole = time.monotonic() - started
    clean = contents(work / "clean")
    outcome = Outcome(0, 0.0, [])
    attempt = 0
    while outcome.kills < kills:
        attempt += 1
        output = work / f"killed-{attempt}"
        log.write_bytes(b"")
        # Lines of the log at each kill.
        counts: list[int] = []
        while True:
            child = fork(partial(job, output))
            # Long enough that some runs get far, short enough that each folder sees several kills.
            if len(counts) < _KILLS_PER_FOLDER and outcome.kills < kills:
                time.sleep(rng.uniform(0.0, 0.4 * whole))
                os.kill(child, signal.SIGKILL)
            status = ended(child)
            if status != -signal.SIGKILL:
                break
            outcome.kills += 1
            counts.append(len(log.read_text().splitlines()))
        if status != 0:
            outcome.different.append(f"attempt {attempt}: exit code {status}")
        outcome.most_redone = max(outcome.most_redone, _most_redone(log, counts))
        found = contents(output)
        outcome.different += [
            f"attempt {attempt}: {name}" for name in clean.keys() | found.keys() if clean.get(name) != found.get(name)
        ]
    return outcome


def _encode(tokenizer: Tokenizer, audio: Path, output: Path, log: Path, format: str, shard_size: int) -> None:
    """Encode, with a line in ``log`` for each recording: its samples and the seconds that it took."""
    with log.open("a") as lines:

        def logged(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(recordings: Sequence[Recording], *rest: Any, **options: Any) -> Any:
                started = time.monotonic()
                result = list(call(recordings, *rest, **options))
                (recording,) = recordings
                lines.write(json.dumps([len(recording.waveform), time.monotonic() - started]) + "\n")
                lines.flush()
                return result

            return wrapper

        if format in ("jsonl", "parquet", "km"):
            tokenizer.encode_recordings = logged(tokenizer.encode_recordings)
            options = Options(format=format, dedup=format != "km", shard_size=shard_size)
            encode_corpus(tokenizer, scan(audio), output, options)
        else:
            tokenizer.iter_features = logged(tokenizer.iter_features)
            kind = format.removeprefix("features-")
            encode_features(tokenizer, scan(audio), output, FeatureOptions(layer=0, format=kind, shard_size=shard_size))


def _most_redone(log: Path, counts: list[int]) -> float:
    """The seconds of work lost by the worst kill; ``counts`` are the lines that the log had at each."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    most, seen, begin = 0.0, set(), 0
    for end in [*counts, len(lines)]:
        run = lines[begin:end]
        most = max(most, sum(seconds for length, seconds in run if length in seen))
        seen |= {length for length, _ in run}
        begin = end
    return most


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="processes to kill per format")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20.0, help="the longest file")
    parser.add_argument("--shard-size", type=int, default=150)
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
        audio = make_audio(Path(folder, "audio"), options.files, options.seconds)
        for format in options.formats:
            work = Path(folder, format)
            outcome = random_kills(tokenizer, audio, work, format, options.kills, options.shard_size)
            failed |= bool(outcome.different) or outcome.most_redone > 5
            print(
                f"{format:17} {outcome.kills} kills, {len(outcome.different)} files differ, "
                f"at most {outcome.most_redone:.2f} s of work done again",
                flush=True,
            )
            for name in outcome.different[:10]:
                print(f"  {name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
