"""The tokenizer: audio in, tokens out; saved and loaded as a folder of config.json and model.safetensors."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from spintok._files import atomic
from spintok.chunking import Window, pieces
from spintok.data.audio import Recording, from_array, record
from spintok.frames import FRAME_RATE, HOP, SAMPLE_RATE
from spintok.hub import registry
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.conv_frontend import Statistics
from spintok.models.encoder import Encoder, EncoderConfig
from spintok.models.importers import load_spin
from spintok.models.mfcc import Mfcc
from spintok.progress import Progress
from spintok.tokens import Tokens

__all__ = ["StoredDtype", "Stretches", "Tokenizer", "TokenizerError", "load"]

FORMAT = 1
"""The version of the folder's layout that this release reads and writes."""

StoredDtype = Literal["float32", "float16"]
"""Of weights in a file; in memory they are float32."""

AnyEncoder = Mfcc | Encoder
Audio = str | os.PathLike[str] | Tensor | NDArray[Any]


class TokenizerError(ValueError):
    """A tokenizer folder that cannot be used; the message names it and the cause."""


class Stretches(NamedTuple):
    """Features of recordings that went through the encoder together, or of one window of a long one.

    Attributes:
        indices: which recordings.
        features: of each, (T_i, D) on the tokenizer's device; the windows of one recording follow each other.
        samples: of each, at 16 kHz; for a long recording those read so far, at its last window all.
    """

    indices: list[int]
    features: list[Tensor]
    samples: list[int]


class Tokenizer(nn.Module):
    """An encoder, the layer to read, and one codebook or more over its features.

    Args:
        encoder: waveforms to features: an ``Encoder`` or ``Mfcc``.
        codebooks: the first one is the primary, whose codes are the tokens.
        layer: the encoder layer that the codebooks read (1 is the first); None for MFCC.
        name: what the tokenizer is called in outputs.
        window: how audio longer than one window is cut.
    """

    def __init__(
        self,
        encoder: AnyEncoder,
        codebooks: Sequence[Codebook],
        *,
        layer: int | None = None,
        name: str = "unnamed",
        window: Window | None = None,
    ) -> None:
        super().__init__()
        if not codebooks:
            raise ValueError("a tokenizer needs at least one codebook")
        names = [codebook.config.name for codebook in codebooks]
        if len(set(names)) != len(names):
            raise ValueError(f"codebooks must have different names, got {', '.join(names)}")
        if isinstance(encoder, Mfcc) != (layer is None):
            raise ValueError("layer is a number for an encoder, and None for MFCC")
        if isinstance(encoder, Encoder) and not 0 <= (layer or 0) <= encoder.config.layers:
            raise ValueError(f"layer must lie in 0 ... {encoder.config.layers}, the encoder's layers, got {layer}")
        self.encoder = encoder
        self.codebooks = nn.ModuleDict({codebook.config.name: codebook for codebook in codebooks})
        self.layer = layer
        self.name = name
        self.window = window or Window(context=encoder.context_frames)
        self.eval()

    # What people ask a tokenizer for, under the names they use.

    @property
    def sample_rate(self) -> int:
        """Samples a second that the encoder reads; ``encode`` resamples to it."""
        return SAMPLE_RATE

    @property
    def frame_rate(self) -> int:
        """Frames, and so codes before de-duplication, a second."""
        return FRAME_RATE

    @property
    def frame_size(self) -> int:
        """Samples from one frame to the next."""
        return HOP

    @property
    def num_codebooks(self) -> int:
        return len(self.codebooks)

    @property
    def codebook_names(self) -> list[str]:
        """The primary codebook's name first."""
        return list(self.codebooks)

    @property
    def codebook_size(self) -> int:
        """K of the primary codebook."""
        return self.size_of(self.codebook_names[0])

    @property
    def device(self) -> torch.device:
        return next(self.codebooks.parameters()).device

    def size_of(self, codebook: str) -> int:
        """K of the named codebook."""
        return self._codebook(codebook).config.size

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration and of every weight: equal exactly when all tokens must be equal."""
        return _digest(_config(self, with_name=False), self)

    def encoder_fingerprint(self, layer: int) -> str:
        """SHA-256 of what decides the features of a layer: the encoder up to it, and the windows of long audio.

        Raises ``ValueError`` for a layer that is not there.
        """
        self.check_layer(layer)
        encoder = self.encoder if isinstance(self.encoder, Mfcc) else self.encoder.truncated(layer)
        return _digest({"encoder": _described(encoder), "window": asdict(self.window)}, encoder)

    # Audio to tokens.

    @overload
    def encode(
        self, audio: list[Any], sample_rate: int | None = ..., *, codebook: str | None = ...
    ) -> list[Tokens]: ...

    @overload
    def encode(self, audio: Audio, sample_rate: int | None = ..., *, codebook: str | None = ...) -> Tokens: ...

    def encode(
        self, audio: Audio | list[Any], sample_rate: int | None = None, *, codebook: str | None = None
    ) -> Tokens | list[Tokens]:
        """Tokens of one recording, or of each of a list.

        Args:
            audio: a path, or samples (S,) or (channels, S) with their ``sample_rate``; or a list of such.
            sample_rate: samples a second of arrays; files state their own.
            codebook: the codebook to use; the primary by default.

        Raises:
            AudioError: the audio cannot be read.
            ValueError: an array without a sample rate, or an unknown codebook.
        """
        name = codebook if codebook is not None else self.codebook_names[0]
        self._codebook(name)
        items = audio if isinstance(audio, list) else [audio]
        recordings = [self._recording(item, sample_rate) for item in items]
        tokens = [found[name] for found in self.encode_recordings(recordings, [name])]
        return tokens if isinstance(audio, list) else tokens[0]

    @torch.inference_mode()
    def encode_recordings(
        self, recordings: Sequence[Recording], codebooks: Sequence[str] | None = None, batch_seconds: float = 200.0
    ) -> list[dict[str, Tokens]]:
        """Tokens of each recording from each named codebook, all codebooks by default, in one pass of the encoder.

        On a GPU, recordings of like length share a padded batch of at most ``batch_seconds``; on a CPU, where a
        batch gains nothing and padding costs time, each runs alone. Masks and masked normalisation make the
        tokens the same either way.
        """
        names = self.codebook_names if codebooks is None else list(codebooks)
        books = {name: self._codebook(name) for name in names}
        found: list[dict[str, list[Tensor]]] = [{name: [] for name in names} for _ in recordings]
        samples: dict[int, int] = {}
        for batch in self.stretches(recordings, self.layer or 0, batch_seconds):
            # One assignment a codebook for the whole batch.
            flat = torch.cat(batch.features)
            for name, book in books.items():
                codes = book.codes(flat).cpu().split([len(part) for part in batch.features])
                for i, part in zip(batch.indices, codes, strict=True):
                    found[i][name].append(part)
            samples.update(zip(batch.indices, batch.samples, strict=True))
        return [
            {name: Tokens(torch.cat(codes).numpy(), self.size_of(name), samples[i]) for name, codes in parts.items()}
            for i, parts in enumerate(found)
        ]

    @torch.inference_mode()
    def stretches(
        self, recordings: Sequence[Recording], layer: int, batch_seconds: float = 200.0
    ) -> Iterator[Stretches]:
        """Features of each recording from one layer: short recordings whole, long ones window by window in order.

        ``layer`` is 0 ... the encoder's layers, and for MFCC, which have none, 0. A ``batch_seconds`` of 0 lets no
        recording share a batch on a GPU. Raises ``ValueError`` for a layer that is not there.
        """
        self.check_layer(layer)
        waveforms = {i: r.waveform for i, r in enumerate(recordings) if r.waveform is not None}
        for group in self._groups({i: len(waveform) for i, waveform in waveforms.items()}, batch_seconds):
            samples = [len(waveforms[i]) for i in group]
            padded = pad_sequence([waveforms[i] for i in group], batch_first=True)
            lengths = torch.tensor(samples)
            features, counts = self._layer(padded.to(self.device), lengths.to(self.device), layer)
            yield Stretches(group, [features[row, :count] for row, count in enumerate(counts.tolist())], samples)
        for i, recording in enumerate(recordings):
            if recording.waveform is None:
                yield from self._long(i, recording, layer)

    def check_layer(self, layer: int) -> None:
        """Raise ``ValueError`` when the encoder has no such layer."""
        if isinstance(self.encoder, Mfcc):
            if layer != 0:
                raise ValueError(f"MFCC have no layers: 0 names their features, got layer {layer}")
        elif not 0 <= layer <= self.encoder.config.layers:
            raise ValueError(
                f"tokenizer {self.name!r} has layers 0 ... {self.encoder.config.layers} of its encoder, got layer "
                f"{layer}; a tokenizer may hold its encoder only up to the layer that its codebooks read"
            )

    def features(
        self, waveforms: Tensor, lengths: Tensor, statistics: Statistics | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the codebooks read: (B, T, D) and frame counts (B,) from padded waveforms (B, S) and lengths (B,).

        ``statistics`` are those of the whole recording when the waveforms are windows of it.
        """
        return self._layer(waveforms, lengths, self.layer or 0, statistics)

    def _layer(
        self, waveforms: Tensor, lengths: Tensor, layer: int, statistics: Statistics | None = None
    ) -> tuple[Tensor, Tensor]:
        """As ``features``, of any layer."""
        chosen = None if isinstance(self.encoder, Mfcc) else layer
        features, counts = self.encoder(waveforms, lengths, layer=chosen, statistics=statistics)
        return features, counts

    def record(self, path: str | os.PathLike[str]) -> Recording:
        """Open an audio file for ``encode_recordings``: held in memory when one window holds it."""
        return record(path, self.window.samples)

    def _recording(self, audio: Audio, sample_rate: int | None) -> Recording:
        if isinstance(audio, str | os.PathLike):
            return self.record(audio)
        if sample_rate is None:
            raise ValueError("samples need their rate: encode(samples, sample_rate)")
        waveform = from_array(audio, sample_rate)
        return Recording(waveform if len(waveform) <= self.window.samples else None, lambda: iter([waveform]))

    def _groups(self, lengths: Mapping[int, int], batch_seconds: float) -> Iterable[list[int]]:
        """Indices that share a batch, by falling length."""
        order = sorted(lengths, key=lambda i: -lengths[i])
        if self.device.type == "cpu":
            yield from ([i] for i in order)
            return
        group: list[int] = []
        for i in order:
            if group and lengths[group[0]] * (len(group) + 1) > batch_seconds * SAMPLE_RATE:
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _long(self, index: int, recording: Recording, layer: int) -> Iterator[Stretches]:
        """The windows of audio that is longer than one.

        An encoder normalises by statistics of the whole recording, so the audio is read twice.
        """
        statistics = self.encoder.statistics(recording.blocks())
        samples = 0

        def counted() -> Iterator[Tensor]:
            nonlocal samples
            for block in recording.blocks():
                samples += len(block)
                yield block

        for piece in pieces(counted(), self.window):
            waveform = piece.waveform[None].to(self.device)
            lengths = torch.tensor([waveform.shape[1]], device=self.device)
            features, _ = self._layer(waveform, lengths, layer, statistics)
            yield Stretches([index], [features[0, piece.skip : piece.skip + piece.keep]], [samples])

    def _codebook(self, name: str) -> Codebook:
        if name not in self.codebooks:
            raise ValueError(
                f"unknown codebook {name!r}; tokenizer {self.name!r} has: {', '.join(self.codebook_names)}"
            )
        book = self.codebooks[name]
        assert isinstance(book, Codebook)
        return book

    # The folder.

    def save(self, folder: str | os.PathLike[str], *, dtype: StoredDtype = "float32") -> None:
        """Write ``config.json`` and ``model.safetensors`` into a folder; each file appears whole or not at all.

        With a ``dtype`` of "float16" the weights are rounded to nearest, which halves the file. What is loaded from it
        computes in float32 with the rounded weights, so it is another tokenizer, with a fingerprint of its own, and a
        frame whose two best codewords are near each other may get the other code. Saved again, in either form, it
        stays the same.

        Raises:
            ValueError: a weight lies beyond float16 (65,504), or ``dtype`` is something else.
        """
        tensors = {name: _stored(name, tensor, dtype) for name, tensor in self.state_dict().items()}
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic(folder / "model.safetensors") as temporary:
            temporary.write_bytes(save(tensors))
        with atomic(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(_config(self), indent=2) + "\n", encoding="utf-8")


def load(
    source: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """Load a tokenizer.

    Args:
        source: a folder that ``Tokenizer.save`` wrote, the name of a tokenizer that ships with spintok or is in a
            registry (``spintok list``) and then is downloaded once, or a checkpoint file that Spin's authors released;
            by default the tokenizer named in ``spintok.hub.registry.DEFAULT``.
        device: where it runs: "cpu", "cuda", "cuda:1", ...
        offline: whether to download nothing; by default as the environment variable SPINTOK_OFFLINE says.
        progress: called during a download with the name and the bytes of each file.

    Raises:
        TokenizerError: the folder is not a whole tokenizer.
        CheckpointError: the file is not a Spin checkpoint, or cannot be read safely.
        DownloadError: weights that live elsewhere cannot be had.
        ValueError: an unknown name or device.
    """
    where = _device(device)
    if source is None:
        folder = registry.find(registry.DEFAULT)
    elif (Path(source) / "config.json").is_file():
        folder = Path(source)
    elif Path(source).is_dir():
        raise TokenizerError(f"{source}: no config.json in this folder, so it is not a tokenizer")
    elif Path(source).is_file():
        return _from_spin(Path(source)).to(where)
    else:
        folder = registry.find(os.fspath(source), offline=offline, progress=progress)
    return _read(folder).to(where)


def _from_spin(path: Path) -> Tokenizer:
    """A released Spin checkpoint as a tokenizer: its encoder up to its layer, its head and its codebook."""
    spin = load_spin(path)
    size, width = spin.codewords.shape
    codebook = Codebook(CodebookConfig("primary", size, spin.config.width, width, "dot", projection=True))
    assert codebook.projection is not None
    with torch.no_grad():
        codebook.codewords.copy_(spin.codewords)
        codebook.projection.weight.copy_(spin.projection_weight)
        codebook.projection.bias.copy_(spin.projection_bias)
    encoder = Encoder.from_state(spin.config, spin.encoder_state).truncated(spin.layer)
    return Tokenizer(encoder, [codebook], layer=spin.layer, name=path.stem)


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {str(name)!r}: say cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(name)!r}: this torch sees no CUDA GPU; use cpu")
    return device


def _stored(name: str, tensor: Tensor, dtype: StoredDtype) -> Tensor:
    """A weight as it goes into a file."""
    tensor = tensor.detach().cpu().contiguous()
    match dtype:
        case "float32":
            return tensor
        case "float16" if tensor.is_floating_point():
            half = tensor.half()
            if not torch.equal(half.isfinite(), tensor.isfinite()):
                raise ValueError(f"{name} has weights beyond 65,504, the largest of float16: save it in float32")
            return half
        case "float16":
            return tensor
        case _:
            raise ValueError(f"dtype must be 'float32' or 'float16', got {dtype!r}")


def _digest(config: Mapping[str, Any], module: nn.Module) -> str:
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name}:{array.dtype}:{tuple(array.shape)}".encode())
        digest.update(array.numpy().tobytes())
    return digest.hexdigest()


def _described(encoder: AnyEncoder) -> dict[str, Any]:
    return {"type": "mfcc"} if isinstance(encoder, Mfcc) else {"type": "ssl", **encoder.config.to_dict()}


def _config(tokenizer: Tokenizer, with_name: bool = True) -> dict[str, Any]:
    config: dict[str, Any] = {
        "spintok_format": FORMAT,
        "encoder": _described(tokenizer.encoder),
        "layer": tokenizer.layer,
        "codebooks": [asdict(tokenizer._codebook(name).config) for name in tokenizer.codebook_names],
        "window": asdict(tokenizer.window),
    }
    return {"name": tokenizer.name, **config} if with_name else config


def _read(folder: Path) -> Tokenizer:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "spintok_format" not in config:
            raise TokenizerError(
                f"{folder}: holds an encoder, not a tokenizer: train a codebook on it (spintok train recipes/...)"
            )
        if config["spintok_format"] != FORMAT:
            raise TokenizerError(
                f"{folder}: config.json has the format {config['spintok_format']!r}; this release reads {FORMAT}"
            )
        described = dict(config["encoder"])
        kind = described.pop("type")
        tokenizer = Tokenizer(
            Mfcc() if kind == "mfcc" else Encoder(EncoderConfig.from_dict(described)),
            [Codebook(CodebookConfig(**codebook)) for codebook in config["codebooks"]],
            layer=config["layer"],
            name=config["name"],
            window=Window(**config["window"]),
        )
        tokenizer.load_state_dict(load_file(folder / "model.safetensors"))
    except TokenizerError:
        raise
    except FileNotFoundError as error:
        raise TokenizerError(f"{error.filename}: missing, so this is not a whole tokenizer") from None
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise TokenizerError(f"{folder}: model.safetensors does not fit config.json ({reason})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(f"{folder}: config.json is not a tokenizer's: {error!r}") from None
    return tokenizer
