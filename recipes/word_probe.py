"""How much of a word its tokens keep: a linear classifier of token n-grams beside one of mean features.

    python recipes/word_probe.py TOKENIZER words.jsonl

The manifest lists isolated words with their ``text``. One speaker in eight is held out, or, of words without a speaker,
one recording in eight. Both classifiers are logistic
regressions: of how often each token and each pair of neighbours occurs, after runs are merged, and of the mean over
time of the features that the codebook reads.
"""

import argparse
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spintok.data.audio import read
from spintok.data.labels.transcripts import Transcripts
from spintok.data.manifest import Utterance, scan
from spintok.loading import load
from spintok.models.encoder import Encoder
from spintok.tokenizer import Tokenizer
from spintok.tokens import deduplicate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="a name or folder")
    parser.add_argument("words", type=Path, help="a manifest of words with their text")
    parser.add_argument("--utterances", type=int, default=1600, help="words to train on; a third as many are tested")
    options = parser.parse_args()
    tokenizer = load(options.tokenizer)
    encoder = tokenizer.encoder
    if not isinstance(encoder, Encoder):
        parser.error(f"{options.tokenizer} has no transformer")
    utterances, texts = scan(options.words), Transcripts(options.words)
    train = [utterance for utterance in utterances if not is_held_out(utterance)]
    held = [utterance for utterance in utterances if is_held_out(utterance)]
    grams, means, words = measure(tokenizer, encoder, train, texts, options.utterances)
    held_grams, held_means, held_words = measure(tokenizer, encoder, held, texts, options.utterances // 3)
    by_tokens = make_pipeline(DictVectorizer(), LogisticRegression(max_iter=2000))
    by_mean = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    print(f"{len(set(words))} words; {len(words)} utterances to train, {len(held_words)} to test; correct, %:")
    print(f"tokens and pairs of tokens: {100 * by_tokens.fit(grams, words).score(held_grams, held_words):.1f}")
    print(f"mean features: {100 * by_mean.fit(means, words).score(held_means, held_words):.1f}")


def is_held_out(utterance: Utterance) -> bool:
    """Whether a word is for the test, by its speaker or, if that is unknown, its key."""
    return zlib.crc32((utterance.speaker or utterance.key).encode()) % 8 == 0


def measure(
    tokenizer: Tokenizer, encoder: Encoder, utterances: Sequence[Utterance], texts: Transcripts, most: int
) -> tuple[list[dict[str, int]], NDArray[np.float32], list[str]]:
    """Counts of n-grams, mean features (N, D) and words of at most ``most`` utterances, drawn at random."""
    chosen = [utterances[i] for i in np.random.default_rng(0).permutation(len(utterances))[:most].tolist()]
    grams, means = [], []
    for utterance in chosen:
        with torch.no_grad():
            features = encoder.hidden_states(read(utterance.path)[None], layers=[tokenizer.layer])[0][0][0]
        units = deduplicate(tokenizer.codebook().codes(features).numpy())[0].tolist()
        grams.append(dict(Counter([*map(str, units), *(f"{a} {b}" for a, b in pairwise(units))])))
        means.append(features.mean(0).numpy())
    return grams, np.stack(means), [texts.text(utterance.key) for utterance in chosen]


if __name__ == "__main__":
    main()
