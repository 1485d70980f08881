"""A tokenizer that streams from one that needs whole recordings: the start of its training, not yet a good tokenizer.

    python recipes/streaming_start.py dc-spin-10m-en ../shared/data/train.jsonl start/

The prior of the running statistics is measured over utterances spread evenly over the manifest.
"""

import argparse
from pathlib import Path

from spintok.data.audio import read
from spintok.data.manifest import scan
from spintok.loading import load
from spintok.models.encoder import Encoder
from spintok.models.streaming import StreamingConfig
from spintok.tokenizer import Tokenizer
from spintok.train.streaming_start import streaming_start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a name or folder")
    parser.add_argument("speech", type=Path, help="a folder or manifest of speech")
    parser.add_argument("output", type=Path, help="the folder to write")
    parser.add_argument("--utterances", type=int, default=500, help="how many to measure the prior on")
    parser.add_argument("--past", type=int, default=StreamingConfig.past, help="frames that attention remembers")
    parser.add_argument(
        "--level-prior", type=float, default=StreamingConfig.level_prior, help="weight of the prior of the level, in s"
    )
    options = parser.parse_args()
    old = load(options.tokenizer)
    if not isinstance(old.encoder, Encoder):
        parser.error(f"{options.tokenizer} has no transformer")
    utterances = scan(options.speech)
    chosen = utterances[:: max(1, len(utterances) // options.utterances)]
    waveforms = (read(utterance.path) for utterance in chosen)
    config = StreamingConfig(past=options.past, level_prior=options.level_prior)
    encoder = streaming_start(old.encoder, waveforms, config)
    name = f"{old.name}-streaming-start"
    Tokenizer(encoder, old.codebooks.values(), layer=old.layer, name=name, window=old.window).save(options.output)


if __name__ == "__main__":
    main()
