"""The parts of a tokenizer that torch traces: the codes of one window, and the sums over a block of a recording."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from spintok.models.codebook import Codebook
from spintok.models.conv_frontend import FrontEnd
from spintok.models.encoder import Encoder
from spintok.models.log_mel import LogMelFrontEnd
from spintok.models.mfcc import STEP, Mfcc
from spintok.models.running_log_mel import RunningLogMelFrontEnd
from spintok.models.statistics import WaveformStatistics
from spintok.tokenizer import Tokenizer

__all__ = ["SUMS", "BlockSums", "Pieces", "WindowCodes", "pieces"]

SUMS = tuple(field.name for field in fields(WaveformStatistics))
"""The names of the sums over a whole recording that a window needs."""


@dataclass(frozen=True)
class Pieces:
    """How samples are counted: a number of ``step``, and the rest of what the last of them reads, ``reach`` in all."""

    step: int
    reach: int

    def samples(self, count: int) -> int:
        """The samples of so many pieces."""
        return count * self.step + self.reach - self.step


class WindowCodes(nn.Module):
    """The codes of one window. Only the samples that they depend on are read, so their number has a fixed rest.

    Args:
        tokenizer: the tokenizer whose encoder is traced up to its layer.
        codebook: the codebook to use.
    """

    def __init__(self, tokenizer: Tokenizer, codebook: Codebook) -> None:
        super().__init__()
        self.encoder = tokenizer.encoder.truncated(tokenizer.layer)
        self.codebook = codebook

    def forward(self, samples: Tensor, *sums: Tensor) -> Tensor:
        """Codes (T,) int32 of samples (S,); ``sums`` are those of the whole recording, if the encoder uses them."""
        features = self._features(samples[None], WaveformStatistics(*sums) if sums else None)[0]
        # As in spintok_kernels.assign: float64 sums, the lowest index of equal scores.
        embedded = self.codebook.embed(features).double()
        codewords = self.codebook.normalized_codewords().double()
        scores = embedded @ codewords.T
        if self.codebook.config.metric == "l2":
            scores = scores - codewords.square().sum(1) / 2
        return scores.argmax(-1).to(torch.int32)

    def _features(self, waveforms: Tensor, statistics: WaveformStatistics | None) -> Tensor:
        encoder = self.encoder
        if isinstance(encoder, Mfcc):
            features: Tensor = encoder(waveforms)[0]
            return features
        assert isinstance(encoder, Encoder)
        lengths = torch.full((1,), waveforms.shape[1])
        if isinstance(encoder.front_end, RunningLogMelFrontEnd):
            local = encoder.front_end(waveforms, lengths)
        else:
            local = encoder.front_end(waveforms, lengths, statistics)
        return encoder.transformer(encoder.project(local), layers=[encoder.num_layers])[0]


class BlockSums(nn.Module):
    """The part of ``WaveformStatistics`` that comes from one block of a recording."""

    def __init__(self, front_end: FrontEnd | LogMelFrontEnd) -> None:
        super().__init__()
        self.front_end = front_end

    def forward(self, own: Tensor, patches: Tensor) -> tuple[Tensor, ...]:
        """The sums from the samples (S,) of the block, and those (P,) of the patches that begin in it."""
        found = self.front_end.statistics(patches[None], torch.full((1,), patches.shape[0]))
        samples = own.double()
        count = torch.full((1,), own.shape[0], dtype=torch.float64)
        found = replace(found, samples=count, sum=samples.sum()[None], squares=samples.square().sum()[None])
        return tuple(getattr(found, name) for name in SUMS)


def pieces(tokenizer: Tokenizer) -> tuple[Pieces, Pieces | None]:
    """In which steps the samples of a window count, and those of patches, if the encoder uses sums over recordings.

    Raises:
        ValueError: the encoder is of a kind that has no graph.
    """
    encoder, grid = tokenizer.encoder, tokenizer.grid
    if isinstance(encoder, Mfcc):
        return Pieces(STEP, grid.reach), None
    if not isinstance(encoder, Encoder):
        raise ValueError(
            f"tokenizer {tokenizer.name!r} has an encoder of another library ({encoder.type_name}), which cannot be "
            "exported: ask that library for a graph of it"
        )
    window = Pieces(grid.hop, grid.reach)
    front_end = encoder.front_end
    if isinstance(front_end, LogMelFrontEnd):
        return window, Pieces(front_end.hop, front_end.length)
    if isinstance(front_end, FrontEnd) and front_end.uses_statistics:
        return window, Pieces(front_end.first.stride, front_end.first.kernel)
    return window, None
