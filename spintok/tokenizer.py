"""The tokenizer: an encoder and codebooks, from audio to tokens."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

import torch
from numpy.typing import NDArray
from torch import Tensor

from spintok.chunking import Window
from spintok.data.audio import AudioError, Recording, as_streams
from spintok.decoder.speaking import Speaking
from spintok.featurizer import FeatureBatch, Featurizer
from spintok.hub.publishing import Publishing
from spintok.inputs import each_or_error, is_batch, iter_items, open_item
from spintok.models.base import FeatureExtractor
from spintok.models.codebook import Codebook, Codebooks
from spintok.models.precision import full_precision
from spintok.serialization import FORMAT, StoredDtype, fingerprint, write_folder
from spintok.streaming.engine import Engine, is_streaming
from spintok.streaming.files import CodesPart, features_by_steps, parts_by_steps, tokens_by_steps
from spintok.streaming.policy import DEFAULT_LATENCY, Policy
from spintok.streaming.pool import StreamPool
from spintok.streaming.state import saved_settings
from spintok.streaming.stream import Stream
from spintok.tokens import Tokens

__all__ = ["Tokenizer"]

Single = str | os.PathLike[str] | Tensor | NDArray[Any] | bytes | tuple[Any, int] | Mapping[str, Any] | BinaryIO
"""One recording, in one of the forms that ``Tokenizer.encode`` reads."""

_PORTION = 256
"""So many recordings are opened before they are encoded, however long the iterable is."""


class Tokenizer(Speaking, Publishing, Featurizer):
    """An encoder, the layer to read, and one codebook or more over its features.

    Args:
        encoder: turns waveforms into features.
        codebooks: the first one is the primary, whose codes are the tokens.
        layer: the encoder layer that the codebooks read, 0 ... ``encoder.num_layers``; the last one by default.
        name: a name for messages and output files.
        window: the size of the chunks of long recordings.
        latency: seconds after which a frame's code must be final, as for a stream; None hears whole recordings.

    Raises:
        ValueError: there is no codebook, two have the same name, one does not fit the encoder, the encoder has no such
            layer, or the latency is impossible.
    """

    def __init__(
        self,
        encoder: FeatureExtractor,
        codebooks: Iterable[Codebook],
        *,
        layer: int | None = None,
        name: str = "unnamed",
        window: Window | None = None,
        latency: float | None = None,
    ) -> None:
        super().__init__(encoder, layer=layer, name=name, window=window)
        self.codebooks = Codebooks(codebooks)
        for codebook in self.codebooks.values():
            if codebook.config.features != encoder.num_features:
                raise ValueError(
                    f"codebook {codebook.config.name!r} reads {codebook.config.features} features, "
                    f"but the encoder has {encoder.num_features}"
                )
        looks_ahead = not is_streaming(encoder)
        self.latency = None if latency is None else Policy.of(latency, self.grid, looks_ahead=looks_ahead).seconds
        if latency is not None:
            self.resample = as_streams
        self.eval()

    def at(self, latency: float | None) -> "Tokenizer":
        """This tokenizer at a latency in seconds, or, with None, for whole recordings. The weights are shared.

        Its tokens are those of a stream, and it has a fingerprint of its own. Encoders that were trained to stream give
        nearly the tokens of whole recordings; others encode windows, and ``spintok bench stream`` tells the price.

        Raises:
            ValueError: the latency is no multiple of a frame, or out of range.
        """
        books = self.codebooks.values()
        return Tokenizer(self.encoder, books, layer=self.layer, name=self.name, window=self.window, latency=latency)

    def stream(
        self, latency: float | None = None, *, codebook: str | None = None, state: bytes | None = None
    ) -> Stream:
        """A stream: audio in, in pieces of any size, and the tokens of the frames that are final out.

        Args:
            latency: seconds of algorithmic latency; by default that of the state, of this tokenizer, or 0.32.
            codebook: the codebook to use; by default that of the state, or the primary.
            state: the state of a stream to continue here, from ``Stream.state``.

        Raises:
            ValueError: an impossible latency, an unknown codebook, or a state that is damaged or of another tokenizer.
        """
        if state is not None:
            latency, codebook = saved_settings(state, latency, codebook)
        return Stream(self.engine(latency, [codebook]), state)

    def stream_pool(
        self, size: int, latency: float | None = None, *, codebook: str | None = None, workers: int | None = None
    ) -> StreamPool:
        """Up to ``size`` streams that are stepped together.

        ``latency`` and ``codebook`` are as in ``stream``; ``workers`` are threads on a CPU, by default one a core.
        Raises ``ValueError`` as ``stream`` does.
        """
        return StreamPool(self.engine(latency, [codebook]), size, workers)

    def engine(self, latency: float | None, codebooks: Iterable[str | None]) -> Engine:
        """What streams of a latency share, by default of this tokenizer's, with codes of the named codebooks."""
        if latency is None:
            latency = DEFAULT_LATENCY if self.latency is None else self.latency
        return Engine(self, latency, list(map(self.codebook, codebooks)), lambda: self.at(latency).fingerprint)

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
            known = ", ".join(self.codebook_names)
            raise ValueError(f"unknown codebook {name!r}; tokenizer {self.name!r} has: {known}")
        return self.codebooks[name]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of configuration, latency and all weights: tokenizers of equal fingerprints give equal tokens."""
        config = self._config(self.encoder.identity())
        return fingerprint(config if self.latency is None else {**config, "latency": self.latency}, self)

    @overload
    def encode(
        self,
        audio: list[Any],
        sample_rate: int | None = ...,
        *,
        channels: bool = ...,
        codebook: str | None = ...,
        latency: float | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[Tokens]: ...

    @overload
    def encode(
        self,
        audio: Single,
        sample_rate: int | None = ...,
        *,
        channels: bool = ...,
        codebook: str | None = ...,
        latency: float | None = ...,
        errors: Literal["raise"] = ...,
    ) -> Tokens: ...

    @overload
    def encode(
        self,
        audio: Single | Iterable[Any],
        sample_rate: int | None = ...,
        *,
        lengths: Sequence[int] | Tensor | NDArray[Any] | None = ...,
        channels: bool = ...,
        codebook: str | None = ...,
        latency: float | None = ...,
        errors: Literal["raise", "return"] = ...,
    ) -> Any: ...

    def encode(
        self,
        audio: Single | Iterable[Any],
        sample_rate: int | None = None,
        *,
        lengths: Sequence[int] | Tensor | NDArray[Any] | None = None,
        channels: bool = False,
        codebook: str | None = None,
        latency: float | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> Any:
        """Tokens of one recording, or a list of the tokens of each of several recordings.

        Args:
            audio: one recording: a path or address (``s3://...``); samples (S,) with their ``sample_rate``, floats in
                [-1, 1] or signed integers at full scale; (samples, rate); a file's contents as bytes or an open binary
                file; or a row or an audio value of Hugging Face datasets. Or several: a list or any other iterable of
                these, or an array (B, S) with ``lengths``.
            sample_rate: samples per second of arrays. Files, pairs and rows state their own.
            lengths: (B,) samples of each recording in a padded array (B, S).
            channels: whether 2-D arrays are the channels (C, S) of one recording, which are averaged.
            codebook: the codebook to use; the primary by default.
            latency: seconds after which a frame's code must be final: the tokens of a stream (``at``). By default that
                of this tokenizer, which is none unless ``at`` made it.
            errors: "raise" raises the first error; "return" puts the error of a recording in the place of its tokens.

        Raises:
            AudioError: a recording cannot be used; the message says why.
            ValueError: an unknown codebook, an impossible latency, or another value of ``errors``.
        """
        if latency is not None and latency != self.latency:
            return self.at(latency).encode(
                audio, sample_rate, lengths=lengths, channels=channels, codebook=codebook, errors=errors
            )
        if errors not in ("raise", "return"):
            raise ValueError(f'errors must be "raise" or "return", got {errors!r}')
        name = self.codebook(codebook).config.name

        def tokens_of(recordings: Sequence[Recording]) -> list[Tokens]:
            return [tokens[name] for tokens in self.encode_recordings(recordings, [name])]

        def encode(portion: Sequence[Recording | AudioError]) -> Sequence[Tokens | AudioError]:
            if errors == "return":
                return each_or_error(tokens_of, portion)
            return tokens_of([item for item in portion if isinstance(item, Recording)])

        several = is_batch(audio, lengths)
        found: list[Tokens | AudioError] = []
        portion: list[Recording | AudioError] = []
        for item in iter_items(audio, lengths) if several else [audio]:
            try:
                portion.append(open_item(item, sample_rate, channels, self.max_samples, self.resample))
            except AudioError as error:
                if errors == "raise":
                    raise
                portion.append(error)
            if len(portion) == _PORTION:
                found += encode(portion)
                portion = []
        found += encode(portion)
        return found if several else found[0]

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
        found = dict(self.iter_recordings(recordings, codebooks, batch_seconds, progress))
        return [found[i] for i in range(len(recordings))]

    @torch.inference_mode()
    def iter_recordings(
        self,
        recordings: Sequence[Recording],
        codebooks: Sequence[str] | None = None,
        batch_seconds: float = 200.0,
        progress: Callable[[int, int], None] = lambda index, samples: None,
    ) -> Iterator[tuple[int, dict[str, Tokens]]]:
        """As ``encode_recordings``: the index and the tokens of each recording, as soon as it is encoded."""
        names = self.codebook_names if codebooks is None else list(codebooks)
        if self.latency is not None:
            yield from tokens_by_steps(self.engine(None, names), recordings, progress)
            return
        codes_of = self._assignment(names)
        short = [i for i, recording in enumerate(recordings) if recording.waveform is not None]
        for batch in self.iter_features([recordings[i] for i in short], batch_seconds=batch_seconds):
            # One assignment per codebook for the whole batch.
            found = codes_of(torch.cat(batch.features))
            rows = {name: codes.split([len(part) for part in batch.features]) for name, codes in found.items()}
            for row, (place, samples) in enumerate(zip(batch.indices, batch.samples, strict=True)):
                progress(short[place], samples)
                yield short[place], self.joined([{name: codes[row] for name, codes in rows.items()}], samples)
        for i, recording in enumerate(recordings):
            if recording.waveform is None:
                parts = []
                for one in self.iter_codes(recording, names):
                    progress(i, one.samples)
                    parts.append(one)
                yield i, self.joined([part.codes for part in parts], parts[-1].samples)

    @torch.inference_mode()
    def iter_codes(
        self, recording: Recording, codebooks: Sequence[str] | None = None, state: bytes | None = None
    ) -> Iterator[CodesPart]:
        """The codes of a long recording part by part, or from the ``state`` of a part on: see ``iter_parts``."""
        names = self.codebook_names if codebooks is None else list(codebooks)
        if self.latency is not None:
            yield from parts_by_steps(self.engine(None, names), recording, state)
            return
        codes_of = self._assignment(names)
        for part in self.iter_parts(recording, state=state):
            yield CodesPart(codes_of(part.layers[0]), part.samples, part.state)

    def joined(self, parts: Sequence[Mapping[str, Tensor]], samples: int) -> dict[str, Tokens]:
        """Consecutive codes (T_i,), by codebook, as the tokens of a recording."""
        whole = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
        return {name: Tokens(codes, self.size_of(name), samples, self.grid) for name, codes in whole.items()}

    def _assignment(self, names: Sequence[str]) -> Callable[[Tensor], dict[str, Tensor]]:
        """A function from features (N, D) to their codes (N,) int32 on the CPU from each named codebook."""
        chosen = {name: self.codebook(name) for name in names}
        with full_precision(self.device):
            prepared = {name: codebook.prepare() for name, codebook in chosen.items()}

        def codes_of(features: Tensor) -> dict[str, Tensor]:
            with full_precision(self.device):
                return {name: one.codes(features, prepared[name]).cpu() for name, one in chosen.items()}

        return codes_of

    @torch.inference_mode()
    def iter_features(
        self, recordings: Sequence[Recording], layers: Sequence[int] | None = None, batch_seconds: float = 200.0
    ) -> Iterator[FeatureBatch]:
        if self.latency is None:
            yield from super().iter_features(recordings, layers, batch_seconds)
            return
        layers = [self.layer] if layers is None else layers
        self.check_layers(layers)
        yield from features_by_steps(self.engine(None, []), recordings, layers)

    def save(self, folder: str | os.PathLike[str], *, dtype: StoredDtype = "float32") -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder, each atomically.

        With a ``dtype`` of "float16" the weights are rounded to nearest, which halves the file. What is loaded from it
        computes in float32 with the rounded weights. It is a different tokenizer with its own fingerprint: a frame
        whose two best codewords are nearly tied may get the other code. Saving it again, in either dtype, changes
        nothing more.

        Raises:
            ValueError: a weight is too large for float16 (65,504), ``dtype`` is unknown, or this tokenizer has a
                latency, which is no part of a folder: save ``at(None)``.
        """
        if self.latency is not None:
            raise ValueError("a folder holds no latency: save tokenizer.at(None), and name the latency when you encode")
        config = {"name": self.name, **self._config({"type": self.encoder.type_name, **self.encoder.to_config()})}
        write_folder(Path(folder), config, self.state_dict(), dtype)

    def summary(self) -> dict[str, str]:
        """What a model card says about the tokenizer."""
        books = (f"`{name}` {one.config.size:,} ({one.config.metric})" for name, one in self.codebooks.items())
        weights = sum(parameter.numel() for parameter in self.parameters())
        return {
            "encoder": f"{self.encoder.type_name}, {weights / 1e6:.1f} million weights; layer {self.layer}",
            "codebooks": ", ".join(books),
            "sample rate": f"{self.sample_rate:,} Hz",
            "frame rate": f"{self.frame_rate} Hz",
            "fingerprint": f"`{self.fingerprint}`",
        }

    def _config(self, encoder: dict[str, Any]) -> dict[str, Any]:
        return {
            "spintok_format": FORMAT,
            "encoder": encoder,
            # null if the encoder has no layers to choose from, as format 1 was defined.
            "layer": self.layer if self.encoder.has_layers else None,
            "codebooks": [asdict(codebook.config) for codebook in self.codebooks.values()],
            "window": asdict(self.window),
        }
