"""Features of utterances, one pass over the audio each."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from spintok.chunking import pieces
from spintok.data.audio import Recording
from spintok.data.manifest import Utterance
from spintok.models.mfcc import Mfcc
from spintok.tokenizer import Tokenizer

__all__ = ["layer_features", "layers_of", "utterance_features"]


def utterance_features(tokenizer: Tokenizer, utterances: Sequence[Utterance]) -> Iterator[tuple[Utterance, Tensor]]:
    """Each utterance with the features that the codebooks read, (T, D), on the tokenizer's device."""
    for utterance in utterances:
        recording = tokenizer.record(utterance.path)
        yield utterance, _windows(tokenizer, recording, lambda *window: [tokenizer.features(*window)[0]])[0]


def layer_features(tokenizer: Tokenizer, utterance: Utterance, layers: Sequence[int | None]) -> list[Tensor]:
    """The features of several layers in one pass of the encoder, each (T, D); MFCC have only None."""
    encoder = tokenizer.encoder
    if isinstance(encoder, Mfcc):
        return _windows(
            tokenizer, tokenizer.record(utterance.path), lambda *w: [tokenizer.features(*w)[0]] * len(layers)
        )
    numbers = [encoder.config.layers if layer is None else layer for layer in layers]
    return _windows(
        tokenizer,
        tokenizer.record(utterance.path),
        lambda waveforms, lengths, statistics: encoder.hidden_states(
            waveforms, lengths, layers=numbers, statistics=statistics
        )[0],
    )


def layers_of(tokenizer: Tokenizer, wanted: Sequence[int] | None = None) -> list[int | None]:
    """The layers to look at: those wanted, or all; [None] for MFCC. Raises ``ValueError`` for layers there are not."""
    encoder = tokenizer.encoder
    if isinstance(encoder, Mfcc):
        if wanted:
            raise ValueError("MFCC have no layers to choose from")
        return [None]
    known = range(encoder.config.layers + 1)
    for layer in wanted or ():
        if layer not in known:
            raise ValueError(f"the encoder has layers 0 to {known[-1]}, not {layer}")
    return list(wanted) if wanted else list(known)


@torch.inference_mode()
def _windows(tokenizer: Tokenizer, recording: Recording, extract: Callable[..., list[Tensor]]) -> list[Tensor]:
    """What ``extract`` makes of a recording: of the whole in one go, or window by window when it is long."""

    def one(waveform: Tensor, statistics: object) -> list[Tensor]:
        lengths = torch.tensor([len(waveform)], device=tokenizer.device)
        return [part[0] for part in extract(waveform[None].to(tokenizer.device), lengths, statistics)]

    if recording.waveform is not None:
        return one(recording.waveform, None)
    statistics = tokenizer.encoder.statistics(recording.blocks())
    parts = [
        [part[piece.skip : piece.skip + piece.keep] for part in one(piece.waveform, statistics)]
        for piece in pieces(recording.blocks(), tokenizer.window)
    ]
    return [torch.cat(layer) for layer in zip(*parts, strict=True)]
