"""Small jobs for the tests of folders of shards."""

from pathlib import Path

import numpy as np
import soundfile

from spintok.corpus import FeatureOptions, Options, encode_corpus, encode_features
from spintok.data.manifest import Utterance

FORMATS = ("jsonl", "parquet", "km", "safetensors", "features-parquet")


def make_recording(folder: Path, number: int) -> Utterance:
    samples = np.random.default_rng(number).standard_normal(2000 + 700 * number) * 0.1
    soundfile.write(folder / f"{number}.wav", samples, 16_000)
    return Utterance(str(number), folder / f"{number}.wav", "ann" if number % 2 else None)


def encode(tokenizer, utterances, output, format="jsonl", **options):
    """Encode to tokens or features, as the format says, in shards of two."""
    options = {"shard_size": 2, **options}
    if format in ("jsonl", "parquet", "km"):
        chosen = Options(format=format, dedup=format != "km", **options)
        return encode_corpus(tokenizer, utterances, output, chosen)
    kind = format.removeprefix("features-")
    return encode_features(tokenizer, utterances, output, FeatureOptions(layer=0, format=kind, **options))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
