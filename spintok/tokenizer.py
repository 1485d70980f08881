"""The tokenizer: an encoder and codebooks, from audio to tokens."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.chunking import Window
from spintok.data.audio import Recording, from_array
from spintok.featurizer import Featurizer
from spintok.models.base import FeatureExtractor
from spintok.models.codebook import Codebook, Codebooks
from spintok.models.precision import full_precision
from spintok.serialization import FORMAT, StoredDtype, fingerprint, write_folder
from spintok.tokens import Tokens

__all__ = ["Tokenizer"]

Audio = str | os.PathLike[str] | Tensor | NDArray[Any]


class Tokenizer(Featurizer):
    """An encoder, the layer to read, and one codebook or more over its features.

    Args:
        encoder: turns waveforms into features.
        codebooks: the first one is the primary, whose codes are the tokens.
        layer: the encoder layer that the codebooks read, 0 ... ``encoder.num_layers``; the last one by default.
        name: a name for messages and output files.
        window: the size of the chunks of long recordings.

    Raises:
        ValueError: there is no codebook, two have the same name, or the encoder has no such layer.
    """

    def __init__(
        self,
        encoder: FeatureExtractor,
        codebooks: Iterable[Codebook],
        *,
        layer: int | None = None,
        name: str = "unnamed",
        window: Window | None = None,
    ) -> None:
        super().__init__(encoder, layer=layer, name=name, window=window)
        self.codebooks = Codebooks(codebooks)
        self.eval()

    @property
    def num_codebooks(self) -> int:
        """The number of codebooks."""
        return len(self.codebooks)

    @property
    def codebook_names(self) -> list[str]:
        """The names of the codebooks, the primary first."""
        return self.codebooks.codebook_names

    @property
    def codebook_size(self) -> int:
        """K, the number of codewords of the primary codebook."""
        return self.codebooks.primary_codebook.config.size

    def size_of(self, codebook: str) -> int:
        """K of the named codebook. Raises ``ValueError`` if there is none of that name."""
        return self.codebook(codebook).config.size

    def codebook(self, name: str | None = None) -> Codebook:
        """The named codebook, by default the primary. Raises ``ValueError`` if there is none of that name."""
        if name is None:
            return self.codebooks.primary_codebook
        if name not in self.codebooks:
            raise ValueError(
                f"unknown codebook {name!r}; tokenizer {self.name!r} has: {', '.join(self.codebook_names)}"
            )
        return self.codebooks[name]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration and all weights: tokenizers of equal fingerprints give equal tokens."""
        return fingerprint(self._config(self.encoder.identity()), self)

    @overload
    def encode(
        self, audio: list[Any], sample_rate: int | None = ..., *, codebook: str | None = ...
    ) -> list[Tokens]: ...

    @overload
    def encode(self, audio: Audio, sample_rate: int | None = ..., *, codebook: str | None = ...) -> Tokens: ...

    def encode(
        self, audio: Audio | list[Any], sample_rate: int | None = None, *, codebook: str | None = None
    ) -> Tokens | list[Tokens]:
        """Tokens of one recording, or of each recording of a list.

        Args:
            audio: a path; or samples (S,) or (channels, S) with their ``sample_rate``; or a list of these.
            sample_rate: samples per second of arrays. Files state their own.
            codebook: the codebook to use; the primary by default.

        Raises:
            AudioError: the audio cannot be read.
            ValueError: an array without a sample rate, or an unknown codebook.
        """
        name = self.codebook(codebook).config.name
        items = audio if isinstance(audio, list) else [audio]
        recordings = [self._recording(item, sample_rate) for item in items]
        tokens = [found[name] for found in self.encode_recordings(recordings, [name])]
        return tokens if isinstance(audio, list) else tokens[0]

    @torch.inference_mode()
    def encode_recordings(
        self,
        recordings: Sequence[Recording],
        codebooks: Sequence[str] | None = None,
        batch_seconds: float = 200.0,
        progress: Callable[[int, int], None] = lambda index, samples: None,
    ) -> list[dict[str, Tokens]]:
        """Tokens of each recording from each named codebook, by default all, in one pass of the encoder.

        ``batch_seconds`` is the amount of audio in one padded batch on a GPU. It does not change the tokens.
        ``progress`` is called with the index of a recording and the samples of it that are encoded: many times for a
        long recording, once for a short one.
        """
        chosen = {name: self.codebook(name) for name in (self.codebook_names if codebooks is None else codebooks)}
        with full_precision(self.device):
            prepared = {name: codebook.prepare() for name, codebook in chosen.items()}
        found: list[dict[str, list[Tensor]]] = [{name: [] for name in chosen} for _ in recordings]
        samples: dict[int, int] = {}
        for batch in self.iter_features(recordings, batch_seconds=batch_seconds):
            # One assignment per codebook for the whole batch.
            flat = torch.cat(batch.features)
            lengths = [len(part) for part in batch.features]
            for name, codebook in chosen.items():
                with full_precision(self.device):
                    codes = codebook.codes(flat, prepared[name]).cpu().split(lengths)
                for i, part in zip(batch.indices, codes, strict=True):
                    found[i][name].append(part)
            for i, count in zip(batch.indices, batch.samples, strict=True):
                samples[i] = count
                progress(i, count)
        return [
            {name: Tokens(torch.cat(codes).numpy(), self.size_of(name), samples[i]) for name, codes in parts.items()}
            for i, parts in enumerate(found)
        ]

    def _recording(self, audio: Audio, sample_rate: int | None) -> Recording:
        if isinstance(audio, str | os.PathLike):
            return self.record(audio)
        if sample_rate is None:
            raise ValueError("an array needs a sample rate: encode(samples, sample_rate)")
        waveform = from_array(audio, sample_rate)
        return Recording(waveform if len(waveform) <= self.window.samples else None, lambda: iter([waveform]))

    def save(self, folder: str | os.PathLike[str], *, dtype: StoredDtype = "float32") -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, each atomically.

        With a ``dtype`` of "float16" the weights are rounded to nearest, which halves the file. What is loaded from it
        computes in float32 with the rounded weights. It is a different tokenizer with its own fingerprint: a frame
        whose two best codewords are nearly tied may get the other code. Saving it again, in either dtype, changes
        nothing more.

        Raises:
            ValueError: a weight is too large for float16 (65,504), or ``dtype`` is unknown.
        """
        config = {"name": self.name, **self._config({"type": self.encoder.type_name, **self.encoder.to_config()})}
        write_folder(Path(folder), config, self.state_dict(), dtype)

    def _config(self, encoder: dict[str, Any]) -> dict[str, Any]:
        return {
            "spintok_format": FORMAT,
            "encoder": encoder,
            # null if the encoder has no layers to choose from, as format 1 was defined.
            "layer": self.layer if self.encoder.has_layers else None,
            "codebooks": [asdict(codebook.config) for codebook in self.codebooks.values()],
            "window": asdict(self.window),
        }
