"""Check a finished token folder: its shards, and that its audio gives the same codes in other circumstances.

Each way of encoding in ``WAYS`` encodes a random sample of the folder's utterances again and compares every code.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from spintok._files import digest
from spintok.corpus.errors import CorpusError
from spintok.corpus.folder import read_description, shard_paths
from spintok.corpus.shard_record import read_record
from spintok.corpus.token_formats import Record
from spintok.corpus.tokens import read_corpus
from spintok.data.locations.addresses import absolute, source_of
from spintok.frames import SAMPLE_RATE
from spintok.tokenizer import Tokenizer

__all__ = ["WAYS", "Comparison", "FolderCheck", "check_folder", "compare_codes", "sample_records", "ways_for"]

Codes = Mapping[str, NDArray[np.int32]]
"""The codes (T,) of an utterance by codebook."""


@dataclass(frozen=True)
class FolderCheck:
    """What ``check_folder`` found in a folder that is whole.

    Attributes:
        utterances: records in the shards.
        failed: utterances in the lists of failures.
        shards: number of shards.
        without_checksum: shards that carry no SHA-256, because an earlier version of spintok wrote them.
    """

    utterances: int
    failed: int
    shards: int
    without_checksum: int


@dataclass(frozen=True)
class Comparison:
    """Codes of the sample, encoded again in one way, against those in the folder.

    Attributes:
        way: its name.
        utterances: how many were encoded.
        codes: how many codes were compared.
        differ: how many of them differ; an utterance with another number of frames counts with all its codes.
        keys: utterances with a difference.
    """

    way: str
    utterances: int
    codes: int
    differ: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Again:
    """What a way of encoding needs: the tokenizer, the name or folder it was loaded from, and the sampled records."""

    tokenizer: Tokenizer
    source: str
    records: Sequence[Record]
    rng: random.Random

    @property
    def codebooks(self) -> list[str]:
        """The codebooks that the folder holds."""
        return list(self.records[0].tokens)


def check_folder(folder: Path) -> FolderCheck:
    """Check that a token folder is complete, in order, without duplicates, and undamaged.

    Raises:
        CorpusError: a shard or an utterance is missing, or one is there twice.
        ShardError: a shard is damaged.
    """
    description = read_description(folder, "tokens")
    shards = shard_paths(folder, "tokens", description)
    # Reading compares each shard with its checksum.
    listed: list[tuple[str, str]] = []
    seen: set[str] = set()
    for record in read_corpus(folder)[1]:
        if record.key in seen:
            raise CorpusError(f"{folder}: {record.key!r} is there twice")
        seen.add(record.key)
        listed.append((record.key, record.file_name))
    failed = sum(len(path.read_text(encoding="utf-8").split("\n")) - 1 for path in sorted(folder.glob("failed*.jsonl")))
    expected = description.get("utterances")
    if expected != len(listed) + failed:
        raise CorpusError(f"{folder}: {len(listed)} utterances and {failed} failures, but {expected} were listed")
    # fairseq's files hold no keys, and a list with failures cannot be rebuilt from the shards.
    if not failed and description["format"] != "km" and digest(listed) != description.get("utterance_list"):
        raise CorpusError(f"{folder}: the utterances are not those that were listed, or in another order")
    return FolderCheck(len(listed), failed, len(shards), sum(read_record(shard) is None for shard in shards))


def sample_records(records: Iterable[Record], size: int, rng: random.Random) -> list[Record]:
    """A uniform random sample of ``size`` records, or all of fewer, in their order (reservoir sampling)."""
    stream = enumerate(records)
    kept = list(islice(stream, size))
    for index, record in stream:
        place = rng.randrange(index + 1)
        if place < size:
            kept[place] = (index, record)
    return [record for _, record in sorted(kept, key=lambda pair: pair[0])]


def compare_codes(
    tokenizer: Tokenizer,
    source: str,
    folder: Path,
    *,
    sample: int = 20,
    seed: int = 0,
    ways: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda way: None,
) -> list[Comparison]:
    """Encode a random sample of a folder again, and compare the codes.

    Args:
        tokenizer: the one that the folder was encoded with, at its latency.
        source: the name or folder that it was loaded from, for other processes.
        folder: tokens that ``check_folder`` accepts.
        sample: the number of utterances.
        seed: chooses the utterances, their order, and the moments at which processes are killed.
        ways: names in ``WAYS``; by default ``ways_for(tokenizer)``.
        progress: called with the name of each way before it runs.

    Raises:
        CorpusError: the folder holds the tokens of another tokenizer, or none; or an audio file is gone.
    """
    description, records = read_corpus(folder)
    if description.get("fingerprint") != tokenizer.fingerprint:
        raise CorpusError(
            f"{folder}: holds the tokens of another tokenizer than {source} (fingerprint "
            f"{str(description.get('fingerprint'))[:12]}, not {tokenizer.fingerprint[:12]}); name it with --tokenizer"
        )
    rng = random.Random(seed)
    chosen = sample_records(records, sample, rng)
    if not chosen:
        raise CorpusError(f"{folder}: holds no utterances")
    for record in chosen:
        if source_of(record.file_name) is None:
            raise CorpusError(f"{record.file_name}: not found; run verify where spintok encode ran, with its audio")
    again = Again(tokenizer, source, chosen, rng)
    found = []
    for name in ways_for(tokenizer) if ways is None else ways:
        progress(name)
        found.append(_compare(name, chosen, WAYS[name](again)))
    return found


def _compare(way: str, records: Sequence[Record], encoded: Mapping[str, Codes]) -> Comparison:
    codes = differ = 0
    keys = []
    for record in records:
        before = differ
        for name, tokens in record.tokens.items():
            found = encoded[record.key][name]
            codes += tokens.num_frames
            same_length = len(found) == tokens.num_frames
            differ += int((found != tokens.codes).sum()) if same_length else max(tokens.num_frames, len(found))
        if differ > before:
            keys.append(record.key)
    return Comparison(way, len(records), codes, differ, tuple(keys))


def _encode(again: Again, records: Sequence[Record]) -> dict[str, Codes]:
    """Codes by key, of one call."""
    recordings = [again.tokenizer.record(record.file_name) for record in records]
    encoded = again.tokenizer.encode_recordings(recordings, again.codebooks)
    return {
        record.key: {name: tokens.codes for name, tokens in found.items()}
        for record, found in zip(records, encoded, strict=True)
    }


def _alone(again: Again) -> dict[str, Codes]:
    found: dict[str, Codes] = {}
    for record in again.records:
        found |= _encode(again, [record])
    return found


def _together(again: Again) -> dict[str, Codes]:
    return _encode(again, again.rng.sample(again.records, len(again.records)))


def _one_thread(again: Again) -> dict[str, Codes]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _alone(again)
    finally:
        torch.set_num_threads(threads)


def _two_workers(again: Again) -> dict[str, Codes]:
    with _job(again) as (command, output):
        workers = [_start([*command, "--rank", str(rank), "--ranks", "2"]) for rank in range(2)]
        for worker in workers:
            _finish(worker)
        return _codes(output)


def _killed(again: Again, kills: int = 3) -> dict[str, Codes]:
    with _job(again) as (command, output):
        for _ in range(kills):
            worker = _start(command)
            # Soon after the first utterance is in the journal, or in the middle of writing.
            while not output.is_dir() and worker.poll() is None:
                time.sleep(0.01)
            time.sleep(again.rng.uniform(0, 1.0))
            worker.kill()
            worker.communicate()
        _finish(_start(command))
        return _codes(output)


def _shared(again: Again) -> dict[str, Codes]:
    with _job(again) as (command, output):
        command = [*command, "--shared", "--lease-seconds", "5"]
        workers = [_start(command) for _ in range(2)]
        while not output.is_dir() and workers[0].poll() is None:
            time.sleep(0.01)
        time.sleep(again.rng.uniform(0, 1.0))
        workers[0].kill()
        workers[0].communicate()
        _finish(workers[1])
        return _codes(output)


def _streamed(again: Again) -> dict[str, Codes]:
    found: dict[str, Codes] = {}
    for record in again.records:
        waveform = torch.cat(list(again.tokenizer.record(record.file_name).blocks()))
        found[record.key] = {name: _stream(again, waveform, name) for name in again.codebooks}
    return found


def _stream(again: Again, waveform: torch.Tensor, codebook: str) -> NDArray[np.int32]:
    """The codes of a waveform that is pushed in pieces of up to a second."""
    stream = again.tokenizer.stream(codebook=codebook)
    codes, start = [], 0
    while start < len(waveform):
        end = start + again.rng.randint(1, SAMPLE_RATE)
        codes.append(stream.push(waveform[start:end], SAMPLE_RATE).codes)
        start = end
    return np.concatenate([*codes, stream.close().codes])


@contextmanager
def _job(again: Again) -> Iterator[tuple[list[str], Path]]:
    """A command that encodes the sample in another process, in shards of a few utterances, and its output folder."""
    with tempfile.TemporaryDirectory(prefix="spintok-verify-") as scratch:
        manifest, output = Path(scratch, "sample.jsonl"), Path(scratch, "tokens")
        rows = ({"id": record.key, "path": absolute(record.file_name)} for record in again.records)
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        codebook = again.codebooks[0] if len(again.codebooks) == 1 else "all"
        options = ["--tokenizer", again.source, "--codebook", codebook, "--device", str(again.tokenizer.device)]
        if again.tokenizer.latency is not None:
            options += ["--latency", f"{again.tokenizer.latency}s"]
        if again.tokenizer.precision != "float32":
            options += ["--precision", again.tokenizer.precision]
        shards = ["--shard-size", str(-(-len(again.records) // 4))]
        yield [sys.executable, "-m", "spintok", "encode", str(manifest), str(output), *options, *shards, "-q"], output


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def _finish(worker: subprocess.Popen[str]) -> None:
    _, errors = worker.communicate()
    if worker.returncode != 0:
        lines = errors.strip().split("\n")
        name = signal.Signals(-worker.returncode).name if worker.returncode < 0 else f"exit code {worker.returncode}"
        raise CorpusError(f"encoding the sample again failed ({name}): {lines[-1]}")


def _codes(output: Path) -> dict[str, Codes]:
    return {
        record.key: {name: tokens.codes for name, tokens in record.tokens.items()} for record in read_corpus(output)[1]
    }


WAYS: dict[str, Callable[[Again], dict[str, Codes]]] = {
    "alone": _alone,
    "together, in another order": _together,
    "on one thread": _one_thread,
    "by two processes": _two_workers,
    "killed three times and resumed": _killed,
    "by two shared workers, one killed": _shared,
    "streamed in pieces of any size": _streamed,
}
"""Ways to encode the sample again, by name: each returns the codes of each utterance."""


def ways_for(tokenizer: Tokenizer) -> list[str]:
    """The names of the ways that apply: only the tokens of a latency are those of a stream."""
    return [name for name, way in WAYS.items() if way is not _streamed or tokenizer.latency is not None]
