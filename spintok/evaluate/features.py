"""Features of utterances, one pass over the audio each."""

from collections.abc import Iterator, MutableMapping, Sequence

import torch
from torch import Tensor

from spintok.data.audio import AudioError
from spintok.data.manifest import Utterance
from spintok.tokenizer import Tokenizer

__all__ = ["iter_layer_features", "layer_features", "layers_of"]


def iter_layer_features(
    tokenizer: Tokenizer, utterances: Sequence[Utterance], layers: Sequence[int], skipped: MutableMapping[str, str]
) -> Iterator[tuple[Utterance, list[Tensor]]]:
    """Each utterance with its ``layer_features``.

    Utterances whose audio cannot be read are left out, and ``skipped`` gets their keys and the reasons.
    """
    for utterance in utterances:
        try:
            features = layer_features(tokenizer, utterance, layers)
        except AudioError as error:
            skipped[utterance.key] = str(error)
            continue
        yield utterance, features


def layer_features(tokenizer: Tokenizer, utterance: Utterance, layers: Sequence[int]) -> list[Tensor]:
    """The features (T, D) of several layers from one pass of the encoder, on the tokenizer's device.

    Raises ``AudioError`` if the audio cannot be read.
    """
    batches = list(tokenizer.iter_features([tokenizer.record(utterance.path)], layers))
    return [torch.cat([batch.layers[index][0] for batch in batches]) for index in range(len(layers))]


def layers_of(tokenizer: Tokenizer, wanted: Sequence[int] | None = None) -> list[int]:
    """The layers to compare: those wanted, or all. Raises ``ValueError`` if there is no such layer."""
    encoder = tokenizer.encoder
    if wanted and not encoder.has_layers:
        raise ValueError("MFCC have no layers to choose from")
    for layer in wanted or ():
        if not 0 <= layer <= encoder.num_layers:
            raise ValueError(f"the encoder has layers 0 to {encoder.num_layers}, not {layer}")
    return list(wanted) if wanted else list(range(encoder.num_layers + 1))
