"""End an encoding process at each of its file operations, resume it, and compare the folder with an undisturbed run's.

    PYTHONPATH=.:tests python -m tests.corpus.crash_points [--every N] [FORMAT ...]

A crash point is an operation on the output folder: opening, renaming or deleting a file, an ``fsync``, or a line of a
journal, of which the first half is written. The process ends there at once, as SIGKILL ends it. Half of the resumes end
at an operation of their own; the last resume must leave the bytes of an undisturbed run.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from forks import FAILED, ended, fork
from voices import mfcc_tokenizer

from spintok.chunking import Window
from spintok.corpus import partial as partial_file
from spintok.corpus.journal import Journal
from spintok.corpus.token_formats import load_pyarrow
from tests.corpus.jobs import FORMATS, contents, encode, make_recording

_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.truncate")


class _Operations:
    """Counts operations on a folder, and ends the process at one of them. An audit hook stays: for a forked process."""

    def __init__(self, folder: Path, last: int) -> None:
        self.folder = str(folder)
        self.count = 0
        self.last = last
        sys.addaudithook(self._audit)
        fsync, append = os.fsync, Journal.append

        def counted_fsync(file: int) -> None:
            self.step()
            fsync(file)

        def counted_append(journal: Journal, value: dict[str, object]) -> None:
            if self.count == self.last:
                before = journal._path.stat().st_size
                append(journal, value)
                os.truncate(journal._path, (before + journal._path.stat().st_size) // 2)
            self.step()
            append(journal, value)

        os.fsync = counted_fsync
        Journal.append = counted_append

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _EVENTS and self.folder in str(arguments[0]):
            self.step()

    def step(self) -> None:
        if self.count == self.last:
            os._exit(9)
        self.count += 1


def _in_child(job: Callable[[], int]) -> int:
    """The exit status of ``job`` in a forked process."""
    return ended(fork(job))


def check(format: str, scratch: Path, every: int) -> tuple[int, list[str]]:
    """The number of crash points of a format that were tried, and what went wrong at which."""
    tokenizer = mfcc_tokenizer()
    # The last recording, of 10 frames, is a long one of three chunks.
    tokenizer.window = Window(keep=4, context=2)
    audio = scratch / "audio"
    audio.mkdir()
    recordings = [make_recording(audio, i) for i in range(3)]

    def run(output: Path, last: int = -1) -> int:
        # Whatever the file of a long recording costs, it is replaced after each chunk.
        partial_file.SHORTEST, partial_file.COST = 0.0, 1e9
        operations = _Operations(output, last)
        summary = encode(tokenizer, recordings, output, format)
        assert not summary.failures, summary.failures
        # Counted in one byte.
        return min(operations.count, 249)

    points = _in_child(partial(run, scratch / "clean"))
    clean, output = contents(scratch / "clean"), scratch / "crashed"
    rng, wrong = random.Random(0), []
    tried = range(0, points, every)
    for index, point in enumerate(tried):
        shutil.rmtree(output, ignore_errors=True)
        status = [_in_child(partial(run, output, point))]
        if index % 2:
            status.append(_in_child(partial(run, output, rng.randrange(points))))
        status.append(_in_child(partial(run, output)))
        if status[0] != 9 or FAILED in status:
            wrong.append(f"{format}: point {point}: exit codes {status}")
        elif contents(output) != clean:
            wrong.append(f"{format}: point {point}: other bytes")
    return len(tried), wrong


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, default=1, help="try one crash point in so many")
    parser.add_argument("formats", nargs="*", default=FORMATS)
    options = parser.parse_args(argv)
    # Forked processes must not inherit threads, nor import pyarrow again and again.
    torch.set_num_threads(1)
    load_pyarrow()
    failed = False
    for format in options.formats:
        with tempfile.TemporaryDirectory() as scratch:
            points, wrong = check(format, Path(scratch), options.every)
        print(f"{format}: {points} crash points, {len(wrong)} wrong", *wrong, sep="\n", flush=True)
        failed |= bool(wrong) or points == 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
