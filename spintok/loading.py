"""``spintok.load``: a tokenizer from a folder, by name, or from a checkpoint of Spin's authors."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spintok.chunking import Window
from spintok.hub import registry
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.encoder import Encoder
from spintok.models.extractors import extractor_from_config
from spintok.models.importers import load_spin
from spintok.progress import Progress
from spintok.serialization import TokenizerError, read_folder
from spintok.tokenizer import Tokenizer

__all__ = ["load"]


def load(
    source: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """Load a tokenizer.

    Args:
        source: a folder that ``Tokenizer.save`` wrote; the name of a tokenizer that comes with spintok or is listed in
            a registry (``spintok list``), which is downloaded once; or a checkpoint that Spin's authors released. The
            default is the tokenizer named in ``spintok.hub.registry.DEFAULT``.
        device: where to compute: "cpu", "cuda", "cuda:1", ...
        offline: True downloads nothing; by default the environment variable SPINTOK_OFFLINE decides.
        progress: called during a download with the name of each file and its bytes.

    Raises:
        TokenizerError: the folder does not hold a complete tokenizer.
        CheckpointError: the file is not a Spin checkpoint, or cannot be read safely.
        DownloadError: the weights cannot be downloaded.
        ValueError: an unknown name or device.
    """
    where = _device(device)
    if source is None:
        folder = registry.find(registry.DEFAULT)
    elif (Path(source) / "config.json").is_file():
        folder = Path(source)
    elif Path(source).is_dir():
        raise TokenizerError(f"{source}: this folder has no config.json, so it is not a tokenizer")
    elif Path(source).is_file():
        return _from_spin(Path(source)).to(where)
    else:
        folder = registry.find(os.fspath(source), offline=offline, progress=progress)
    return _from_folder(folder).to(where)


def _from_folder(folder: Path) -> Tokenizer:
    config, weights = read_folder(folder)
    try:
        tokenizer = _build(config)
    except TokenizerError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(f"{folder}: config.json does not describe a tokenizer: {error!r}") from None
    try:
        tokenizer.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise TokenizerError(f"{folder}: model.safetensors does not fit config.json ({reason})") from None
    return tokenizer


def _build(config: dict[str, Any]) -> Tokenizer:
    return Tokenizer(
        extractor_from_config(config["encoder"]),
        [Codebook(CodebookConfig(**codebook)) for codebook in config["codebooks"]],
        layer=config["layer"],
        name=config["name"],
        window=Window(**config["window"]),
    )


def _from_spin(path: Path) -> Tokenizer:
    """A released Spin checkpoint as a tokenizer: its encoder up to the layer that it reads, its head, its codebook."""
    spin = load_spin(path)
    size, width = spin.codewords.shape
    codebook = Codebook(CodebookConfig("primary", size, spin.config.width, width, "dot", projection=True))
    weights: dict[str, Tensor] = {
        "codewords": spin.codewords,
        "projection.weight": spin.projection_weight,
        "projection.bias": spin.projection_bias,
    }
    codebook.load_state_dict(weights)
    encoder = Encoder.from_state(spin.config, spin.encoder_state).truncated(spin.layer)
    return Tokenizer(encoder, [codebook], layer=spin.layer, name=path.stem)


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {str(name)!r}: use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(name)!r}: this torch sees no CUDA GPU; use cpu")
    return device
