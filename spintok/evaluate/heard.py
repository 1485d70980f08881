"""One pass over the audio that keeps what the metrics of a tokenizer need."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.abx import Item, find_items, sample_items, used_items
from spintok.evaluate.features import utterance_features
from spintok.evaluate.options import Progress, Settings, Speech
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = ["Heard", "hear"]


@dataclass(frozen=True)
class Heard:
    """What one pass over the audio kept: tokens, mean features (D,), and the features (T, D) of the ABX items."""

    tokens: dict[str, Tokens]
    pooled: dict[str, NDArray[np.float32]]
    items: list[Item]
    features: list[NDArray[np.float32]]


def hear(tokenizer: Tokenizer, speech: Speech, settings: Settings, *, with_items: bool, progress: Progress) -> Heard:
    """Encode every utterance once. ``with_items`` keeps the features of ABX items."""
    name = settings.codebook or tokenizer.codebook_names[0]
    size = tokenizer.size_of(name)
    codebook = tokenizer.codebooks[name]
    items: list[Item] = []
    if with_items:
        phones = {key: alignment.phones for key, alignment in speech.alignments.items()}
        # How long utterances are is not known yet.
        everything = find_items(phones, dict.fromkeys(phones, 2**31), speech.speakers, settings.unit)
        items = used_items(sample_items(everything, settings.sampling), sampling=settings.sampling)
    of_utterance: dict[str, list[Item]] = {}
    for item in items:
        of_utterance.setdefault(item.key, []).append(item)
    heard = Heard({}, {}, [], [])
    total = len(speech.utterances)
    label = f"encoding with {tokenizer.name}"
    done = 0

    def count(utterances: int) -> None:
        nonlocal done
        done += utterances
        progress(label, done, total)

    for utterance, features in utterance_features(tokenizer, speech.utterances, count):
        codes = codebook.codes(features).cpu().numpy()  # type: ignore[operator]
        array = features.float().cpu().numpy()
        heard.tokens[utterance.key] = Tokens(codes, size)
        heard.pooled[utterance.key] = array.mean(axis=0) if len(array) else np.zeros(array.shape[1], np.float32)
        for item in of_utterance.get(utterance.key, ()):
            if item.start < len(array):
                heard.items.append(item._replace(stop=min(item.stop, len(array))))
                heard.features.append(array[item.start : item.stop].copy())
    return heard
