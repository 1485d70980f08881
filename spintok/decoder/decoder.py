"""The decoder: tokens of one codebook to speech in one of its voices."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from spintok.decoder.acoustics import STEP
from spintok.decoder.network import DecoderConfig, Network
from spintok.decoder.stream import DecoderStream
from spintok.decoder.synthesis import synthesize
from spintok.frames import HOP, RECEPTIVE_FIELD, SAMPLE_RATE, FrameGrid, num_samples
from spintok.serialization import DECODER, StoredDtype, fingerprint, write_folder
from spintok.tokens import Tokens

__all__ = ["CodebookMismatchError", "Decoder", "Source"]


class CodebookMismatchError(ValueError):
    """Tokens of another tokenizer or codebook than the decoder's; the message names both."""


@dataclass(frozen=True)
class Source:
    """The codebook whose tokens a decoder reads.

    Attributes:
        tokenizer: the name of the tokenizer.
        fingerprint: identifies its configuration and weights (``Tokenizer.fingerprint``).
        codebook: the name of the codebook.
        size: K, its number of codewords.
        hop, reach: the grid of its frames (``FrameGrid``).
        latency: the latency of the tokens, in seconds; None for whole recordings. It is part of the fingerprint.
    """

    tokenizer: str
    fingerprint: str
    codebook: str
    size: int
    hop: int = HOP
    reach: int = RECEPTIVE_FIELD
    latency: float | None = None

    @property
    def grid(self) -> FrameGrid:
        """Where the frames of the tokens lie."""
        return FrameGrid(self.hop, self.reach)


class Decoder(nn.Module):
    """Tokens to speech at 16 kHz.

    Args:
        source: the codebook whose tokens it reads.
        voices: the names of its voices; the first is the default.
        config: the sizes of the network.
        name: the name in messages.

    Raises:
        ValueError: there is no voice, two have one name, or frames do not step by a multiple of 5 ms.
    """

    def __init__(
        self, source: Source, voices: Sequence[str], config: DecoderConfig | None = None, *, name: str = "unnamed"
    ) -> None:
        super().__init__()
        if not voices or len(set(voices)) < len(voices):
            raise ValueError(f"a decoder needs voices of different names, got {list(voices)}")
        if source.grid.hop % STEP:
            raise ValueError(f"a decoder needs frames that step by a multiple of {STEP} samples, got {source.hop}")
        self.source = source
        self.voices = tuple(voices)
        self.name = name
        self.network = Network(config or DecoderConfig(), source.size, len(voices), source.hop // STEP)
        self.eval()

    @property
    def sample_rate(self) -> int:
        """Samples per second of the waveforms."""
        return SAMPLE_RATE

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration and all weights: decoders of equal fingerprints make equal sound."""
        return fingerprint({name: value for name, value in self._config().items() if name != "name"}, self)

    @property
    def latency(self) -> float:
        """Seconds by which the samples of a stream lag behind its codes: the look-ahead of the network, and 10 ms."""
        config = self.network.config
        return config.look_ahead / self.source.grid.rate + config.smoothing * STEP / SAMPLE_RATE + 0.01

    def describe(self) -> str:
        """A line about the decoder: its name, whose tokens it reads, and its voices."""
        source = self.source
        listed = ", ".join(self.voices[:3]) + (", ..." if len(self.voices) > 3 else "")
        return (
            f"decoder {self.name} of {source.tokenizer} ({source.fingerprint[:12]}), codebook {source.codebook} of "
            f"{source.size}; {len(self.voices)} voice{'' if len(self.voices) == 1 else 's'}: {listed}"
        )

    def check(self, fingerprint: str, codebook: str, size: int | None = None) -> None:
        """Raise ``CodebookMismatchError`` unless tokens of this tokenizer and codebook are what the decoder reads."""
        source = self.source
        found = (fingerprint, codebook, source.size if size is None else size)
        if found != (source.fingerprint, source.codebook, source.size):
            raise CodebookMismatchError(
                f"decoder {self.name!r} reads tokens of {source.tokenizer} ({source.fingerprint[:12]}), codebook "
                f"{source.codebook!r} of {source.size}; these are of {fingerprint[:12]}, codebook {codebook!r}"
                f"{'' if size is None else f' of {size}'}"
            )

    @torch.inference_mode()
    def decode(self, tokens: Tokens | ArrayLike | Tensor, voice: str | None = None) -> Tensor:
        """Speech (S,) float32 at 16 kHz in (-1, 1), on the CPU.

        Args:
            tokens: the tokens of one recording, or its codes (T,), one for each frame.
            voice: one of ``voices``; the first by default.

        Returns:
            ``num_samples(T)`` samples, those that T frames read: 320 T + 80 at 50 frames per second, none if T is 0.
            The same tokens give the same samples.

        Raises:
            CodebookMismatchError: the tokens are of a codebook of another size.
            ValueError: codes outside the codebook, or an unknown voice.
        """
        codes = torch.from_numpy(self._codes(tokens)).long().to(self.device)
        number = self._voice(voice)
        if not len(codes):
            return torch.zeros(0)
        network = self.network
        return synthesize(
            network.parameters_of(network(codes[None], number)), num_samples(len(codes), self.source.grid)
        )

    @torch.inference_mode()
    def durations(self, units: ArrayLike | Tensor, voice: str | None = None) -> NDArray[np.int32]:
        """How many frames each unit lasts, (R,) int32 of at least 1, for units (R,) without durations.

        Units are what a language model of de-duplicated tokens generates. Raises ``ValueError`` as ``decode`` does.
        """
        codes = torch.from_numpy(self._codes(units)).long().to(self.device)
        number = self._voice(voice)
        if not len(codes):
            return np.zeros(0, dtype=np.int32)
        expected = self.network.log_durations(codes[None], number)[0].exp()
        return expected.round().clamp(1, 100).to(torch.int32).cpu().numpy()

    def decode_units(self, units: ArrayLike | Tensor, voice: str | None = None) -> Tensor:
        """Speech (S,) of units (R,) without durations, which are predicted: see ``durations`` and ``decode``."""
        return self.decode(np.repeat(self._codes(units), self.durations(units, voice)), voice)

    def stream(self, voice: str | None = None) -> DecoderStream:
        """A stream: push codes as they come, and get samples back ``latency`` seconds behind them."""
        return DecoderStream(self.network, self.source.grid, self._voice(voice), self._codes)

    @property
    def device(self) -> torch.device:
        """Where the network is computed. The waveform is always synthesized on the CPU."""
        return self.network.mean.device

    def save(self, folder: str | os.PathLike[str], *, dtype: StoredDtype = "float16") -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, each atomically."""
        write_folder(Path(folder), self._config(), self.state_dict(), dtype)

    def _config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            DECODER.marker: DECODER.version,
            "source": {name: value for name, value in asdict(self.source).items() if value is not None},
            "voices": list(self.voices),
            "network": asdict(self.network.config),
        }

    def check_voice(self, name: str | None) -> None:
        """Raise ``ValueError`` for a voice that the decoder does not have."""
        self._voice(name)

    def _voice(self, name: str | None) -> Tensor:
        """The number (1,) of a voice."""
        if name is not None and name not in self.voices:
            raise ValueError(f"unknown voice {name!r}; decoder {self.name!r} has: {', '.join(self.voices)}")
        return torch.tensor([0 if name is None else self.voices.index(name)], device=self.device)

    def _codes(self, tokens: Tokens | ArrayLike | Tensor) -> NDArray[np.int32]:
        """Codes (T,) as an array. Raises ``ValueError`` for those outside the codebook."""
        if isinstance(tokens, Tensor):
            tokens = tokens.cpu().numpy()
        if not isinstance(tokens, Tokens):
            tokens = Tokens(np.asarray(tokens, dtype=None if np.size(tokens) else np.int32), self.source.size)
        if tokens.codebook_size != self.source.size:
            raise CodebookMismatchError(
                f"decoder {self.name!r} reads codebook {self.source.codebook!r} of {self.source.tokenizer} with "
                f"{self.source.size} codewords; these tokens are of a codebook of {tokens.codebook_size}"
            )
        # Writable, as torch wants it.
        return tokens.codes.copy()
