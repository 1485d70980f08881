"""One pass over the audio that keeps what the metrics of a tokenizer need."""

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spintok.evaluate.abx_triples import Segment
from spintok.evaluate.features import iter_layer_features
from spintok.evaluate.options import Dataset, EvaluationOptions
from spintok.progress import Progress
from spintok.tokenizer import Tokenizer
from spintok.tokens import Tokens

__all__ = ["Encoded", "encode_all"]


@dataclass(frozen=True)
class Encoded:
    """What one pass over a dataset keeps.

    Attributes:
        tokens: tokens of each utterance.
        mean_features: features of each utterance, averaged over time, (D,).
        segments: the segments that were asked for, cut to the length of their utterances.
        segment_features: features of each segment, (T, D).
    """

    tokens: dict[str, Tokens] = field(default_factory=dict)
    mean_features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)
    segment_features: list[NDArray[np.float32]] = field(default_factory=list)


def encode_all(
    tokenizer: Tokenizer,
    dataset: Dataset,
    options: EvaluationOptions,
    segments: Sequence[Segment],
    skipped: MutableMapping[str, str],
    progress: Progress,
) -> Encoded:
    """Encode every utterance once with the codebook of ``options``; keep the features of ``segments``.

    Utterances whose audio cannot be read are left out, and ``skipped`` gets their keys and the reasons.
    """
    name = options.codebook or tokenizer.codebook_names[0]
    size = tokenizer.size_of(name)
    codebook = tokenizer.codebook(name)
    of_utterance: dict[str, list[Segment]] = {}
    for segment in segments:
        of_utterance.setdefault(segment.key, []).append(segment)
    encoded, prepared = Encoded(), codebook.prepare()
    found = iter_layer_features(tokenizer, dataset.utterances, [tokenizer.layer], skipped)
    for done, (utterance, (features,)) in enumerate(found, start=1):
        codes = codebook.codes(features, prepared).cpu().numpy()
        array = features.float().cpu().numpy()
        encoded.tokens[utterance.key] = Tokens(codes, size, grid=tokenizer.grid)
        encoded.mean_features[utterance.key] = (
            array.mean(axis=0) if len(array) else np.zeros(array.shape[1], np.float32)
        )
        for segment in of_utterance.get(utterance.key, ()):
            if segment.start < len(array):
                encoded.segments.append(segment._replace(stop=min(segment.stop, len(array))))
                encoded.segment_features.append(array[segment.start : segment.stop].copy())
        progress(f"encoding with {tokenizer.name}", done, len(dataset.utterances))
    return encoded
