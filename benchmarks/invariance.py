"""Codes of random batches against those of each file alone, with products of fixed order and with torch's.

    python -m benchmarks.invariance --frames 1000000

A random HuBERT Base and 2,000 random codewords, of which many are nearly tied. On a GPU "fixed order" is what
``spintok encode`` computes, and "torch" is what it would compute with cuBLAS, cuDNN and torch's attention: the share of
codes that change with the batch, and what the fixed order costs. On a CPU, where files are encoded alone, both are the
same.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch

from spintok.data.audio import Recording
from spintok.models import products
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.config import EncoderConfig
from spintok.models.encoder import random_encoder
from spintok.tokenizer import Tokenizer

WAYS = ("fixed order", "torch")


def make_tokenizer(layer: int, device: str) -> Tokenizer:
    torch.manual_seed(0)
    book = Codebook(CodebookConfig("primary", 2000, 768, 256, "dot", projection=True))
    encoder = random_encoder(EncoderConfig(layers=layer), torch.Generator().manual_seed(0))
    return Tokenizer(encoder, [book]).to(device)


def make_recordings(frames: int, draw: random.Random) -> list[Recording]:
    """Noise of 1 to 20 s, as long as a corpus's files are."""
    torch.manual_seed(0)
    recordings, total = [], 0
    while total < frames:
        samples = int(min(20, max(1, draw.lognormvariate(1.5, 0.8))) * 16_000)
        recordings.append(Recording(torch.randn(samples) * draw.uniform(0.01, 0.3), lambda: iter(())))
        total += samples // 320
    return recordings


@contextmanager
def way(name: str) -> Iterator[None]:
    with patch.object(products, "_DEVICES", {"cuda"} if name == "fixed order" else set()):
        yield


def encode(tokenizer: Tokenizer, recordings: Sequence[Recording], seconds: float) -> list[list[int]]:
    found = tokenizer.encode_recordings(recordings, batch_seconds=seconds)
    return [tokens["primary"].codes.tolist() for tokens in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if a code of the fixed order changes with the batch."""
    parser = argparse.ArgumentParser(
        prog="spintok bench invariance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--layer", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="default: a GPU if there is one")
    parser.add_argument("--batch-seconds", type=float, nargs="+", default=[30.0, 200.0, 800.0])
    options = parser.parse_args(arguments)
    draw = random.Random(0)
    tokenizer = make_tokenizer(options.layer, options.device)
    recordings = make_recordings(options.frames, draw)
    hours = sum(len(recording.waveform) for recording in recordings if recording.waveform is not None) / 16_000 / 3600
    changed = dict.fromkeys(WAYS, 0)
    frames = 0
    for name in WAYS:
        with way(name):
            alone = encode(tokenizer, recordings, 0)
            frames = sum(map(len, alone))
            for seconds in options.batch_seconds:
                order = draw.sample(range(len(recordings)), len(recordings))
                found = encode(tokenizer, [recordings[i] for i in order], seconds)
                pairs = zip(order, found, strict=True)
                changed[name] += sum(a != b for i, one in pairs for a, b in zip(one, alone[i], strict=True))
    times = dict.fromkeys(WAYS, float("inf"))
    for _ in range(options.rounds):
        for name in WAYS:
            with way(name):
                started = time.perf_counter()
                encode(tokenizer, recordings, 200)
                times[name] = min(times[name], time.perf_counter() - started)
    print(
        f"random HuBERT Base, layer {options.layer}, K 2000; {len(recordings)} files, {hours:.2f} h; "
        f"{options.device}, torch {torch.__version__}"
    )
    print(f"| products | codes that change in {len(options.batch_seconds)} batchings of {frames} | hours an hour |")
    print("|---|---|---|")
    for name in WAYS:
        print(f"| {name} | {changed[name]} | {3600 * hours / times[name]:.0f} |")
    return int(changed["fixed order"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
