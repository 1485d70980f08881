"""A tokenizer with the interface that transformers gives its audio codecs, such as Mimi, EnCodec and X-Codec 2.

Code that was written for one of them runs with a tokenizer of spintok: ``from_pretrained``, a feature extractor that
pads, ``encode(input_values, padding_mask).audio_codes``. Codes of a recording never depend on its batch.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from spintok._files import require
from spintok.loading import load
from spintok.tokenizer import Tokenizer

__all__ = ["CodecConfig", "CodecModel", "CodecOutput"]


class CodecOutput(NamedTuple):
    """The result of ``CodecModel.encode``.

    Attributes:
        audio_codes: (B, Q, T) int64, the codes of each codebook, 0 where padded.
        audio_codes_mask: (B, T) bool, True at the frames of each recording.
    """

    audio_codes: Tensor
    audio_codes_mask: Tensor


@dataclass(frozen=True)
class CodecConfig:
    """The properties of a codec under the names that transformers gives them.

    Attributes:
        sampling_rate: samples per second.
        frame_rate: frames per second.
        frame_size: samples from one frame to the next.
        codebook_size: K of the primary codebook.
        codebook_sizes: K of each codebook, the primary one first.
        num_quantizers: the number of codebooks.
    """

    sampling_rate: int
    frame_rate: int
    frame_size: int
    codebook_size: int
    codebook_sizes: tuple[int, ...]
    num_quantizers: int


class CodecModel(nn.Module):
    """A tokenizer as an audio codec that encodes.

    Args:
        tokenizer: the tokenizer.
    """

    main_input_name = "input_values"

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        sizes = tuple(tokenizer.size_of(name) for name in tokenizer.codebook_names)
        self.config = CodecConfig(
            tokenizer.sample_rate, tokenizer.frame_rate, tokenizer.frame_size, sizes[0], sizes, len(sizes)
        )

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
    ) -> Self:
        """The codec of a tokenizer: a folder, a name, or a repository of the Hugging Face Hub and its revision.

        Raises:
            ValueError: as ``spintok.load``.
        """
        name = os.fspath(source) if revision is None else f"{os.fspath(source)}@{revision}"
        return cls(load(name, offline=local_files_only or None)).eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer and ``preprocessor_config.json``, which ``AutoFeatureExtractor`` reads."""
        self.tokenizer.save(folder)
        self.feature_extractor().save_pretrained(Path(folder))

    def feature_extractor(self) -> Any:
        """transformers' ``EncodecFeatureExtractor`` at this sampling rate, which pads and makes ``padding_mask``."""
        transformers = require("transformers", extra="huggingface", purpose="a feature extractor")
        return transformers.EncodecFeatureExtractor(feature_size=1, sampling_rate=self.config.sampling_rate)

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.tokenizer.device

    def encode(
        self, input_values: Tensor, padding_mask: Tensor | None = None, num_quantizers: int | None = None
    ) -> CodecOutput:
        """The codes of a padded batch.

        Args:
            input_values: (B, 1, S) or (B, S), samples in [-1, 1] at ``config.sampling_rate``.
            padding_mask: (B, S) or (B, 1, S), 1 at the samples of a recording, which come first; all by default.
            num_quantizers: use so many codebooks, the primary one first; all by default.

        Raises:
            ValueError: other shapes, a mask with gaps, or an impossible number of codebooks.
        """
        count = self.config.num_quantizers if num_quantizers is None else num_quantizers
        if not 1 <= count <= self.config.num_quantizers:
            raise ValueError(f"num_quantizers must be in 1 ... {self.config.num_quantizers}, got {count}")
        waveforms = _rows("input_values", input_values)
        lengths = torch.full((len(waveforms),), waveforms.shape[1])
        if padding_mask is not None:
            mask = _rows("padding_mask", padding_mask).bool().cpu()
            lengths = mask.sum(1)
            if mask.shape != waveforms.shape or not torch.equal(mask, torch.arange(mask.shape[1]) < lengths[:, None]):
                raise ValueError("padding_mask must have the shape of the samples, and ones before zeros in each row")
        found = []
        for name in self.tokenizer.codebook_names[:count]:
            tokens = self.tokenizer.encode(waveforms.cpu(), self.config.sampling_rate, lengths=lengths, codebook=name)
            found.append([torch.from_numpy(one.codes.astype("int64")) for one in tokens])
        frames = torch.tensor([len(codes) for codes in found[0]])
        padded = torch.stack([nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in found], dim=1)
        mask = torch.arange(padded.shape[2]) < frames[:, None]
        return CodecOutput(padded.to(input_values.device), mask.to(input_values.device))

    def forward(self, input_values: Tensor, padding_mask: Tensor | None = None) -> CodecOutput:
        """``encode`` with all codebooks."""
        return self.encode(input_values, padding_mask)


def _rows(name: str, values: Tensor) -> Tensor:
    """(B, S) of (B, 1, S) or (B, S)."""
    rows = values[:, 0] if values.ndim == 3 and values.shape[1] == 1 else values
    if rows.ndim != 2:
        raise ValueError(f"{name} must be (batch, 1, samples) or (batch, samples), got {tuple(values.shape)}")
    return rows
