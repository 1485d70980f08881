"""Token folders of random tokens, with the awkward names that real folders have."""

import json
import os
import signal
from pathlib import Path
from typing import Literal

import numpy as np

from spintok.corpus.token_formats import Record, write_shard
from spintok.export.packed.dataset import export_packed
from spintok.export.targets import FileTarget, export_files
from spintok.frames import num_samples
from spintok.tokens import Tokens

SIZES = {"primary": 100, "auxiliary": 300}
NAMES = ["a b", "dir/ünïcödé", "dots.in.name", "quote'\"", "plain", "dir/deeper/x", "日本語", "9"]


def runs(rng: np.random.Generator, size: int, frames: int) -> np.ndarray:
    """Codes that stay for a few frames, as speech does."""
    return np.repeat(rng.integers(size, size=frames), rng.integers(1, 6, size=frames))[:frames]


def make_records(
    seed: int = 0, count: int = 24, books: tuple[str, ...] = ("primary",), frames: int = 40
) -> list[Record]:
    rng = np.random.default_rng(seed)
    records = []
    for number in range(count):
        length = int(rng.integers(1, 40))
        samples = num_samples(length) + int(rng.integers(300))
        tokens = {book: Tokens(runs(rng, SIZES[book], length), SIZES[book], samples) for book in books}
        key = f"{NAMES[number % len(NAMES)]}-{number}"
        records.append(Record(key, f"/data/{key}.flac", tokens, None if number % 3 == 0 else f"s{number % 4}"))
    return records


def write_folder(folder: Path, records: list[Record], shard_size: int = 10, fingerprint: str = "f" * 64) -> Path:
    """What ``spintok encode`` leaves."""
    folder.mkdir(parents=True)
    sizes = {name: tokens.codebook_size for name, tokens in records[0].tokens.items()}
    description = {
        "spintok_tokens": 1,
        "tokenizer": "random",
        "fingerprint": fingerprint,
        "codebooks": sizes,
        "frame_rate": 50,
        "format": "jsonl",
        "dedup": True,
        "shard_size": shard_size,
        "utterances": len(records),
    }
    for index, first in enumerate(range(0, len(records), shard_size)):
        write_shard(folder / f"tokens-{index:05d}.jsonl", records[first : first + shard_size], "jsonl", dedup=True)
    (folder / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def export(folder: Path, output: Path, target: FileTarget | Literal["packed"]) -> None:
    """Any target, with shards or windows so small that there are several."""
    if target == "packed":
        export_packed([folder], output, window=16, shuffle=0, split_by="file", validation=0.3)
    else:
        export_files([folder], output, target, shard_size=7)


def export_and_die(folder: Path, output: Path, target: FileTarget | Literal["packed"], renames: int) -> None:
    """An export in a process that is killed at the rename after so many."""
    replace = Path.replace
    left = renames

    def dying(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = dying
    export(folder, output, target)
