"""``spintok.load``: a tokenizer from a folder, by name, or from a checkpoint of Spin's authors."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spintok.chunking import Window
from spintok.featurizer import Featurizer
from spintok.hub import registry
from spintok.hub.catalogue import Published, catalogue, fetch_part
from spintok.hub.download import is_offline
from spintok.models.codebook import Codebook, CodebookConfig
from spintok.models.encoder import Encoder
from spintok.models.extractors import extractor_from_config
from spintok.models.importers import CheckpointError, load_extractor, load_spidr, load_spin
from spintok.models.importers.centroids import read_centroids
from spintok.progress import Progress, no_progress
from spintok.serialization import TokenizerError, is_tokenizer, load_weights, read_folder
from spintok.tokenizer import Tokenizer

__all__ = ["find_device", "find_source", "import_quantizer", "load", "load_featurizer"]


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
            a registry (``spintok list``), which is downloaded once; "ORG/NAME" or "ORG/NAME@REVISION", a repository of
            the Hugging Face Hub; or a checkpoint that Spin's authors released. The default is the tokenizer named in
            ``spintok.hub.registry.DEFAULT``.
        device: where to compute: "cpu", "cuda", "cuda:1", ...; "auto" is a GPU if there is one, else the CPU.
        offline: True downloads nothing; by default the environment variable SPINTOK_OFFLINE decides.
        progress: called during a download with the name of each file and its bytes.

    Raises:
        TokenizerError: the folder does not hold a complete tokenizer.
        CheckpointError: the file is not a Spin checkpoint, or cannot be read safely.
        DownloadError: the weights cannot be downloaded.
        ValueError: an unknown name or device.
    """
    where = find_device(device)
    named, source = source, None if source is None else find_source(source, offline=offline, progress=progress)
    if source is None:
        folder = registry.find(registry.DEFAULT)
    elif (Path(source) / "config.json").is_file():
        folder = Path(source)
        if named != source and not is_tokenizer(folder):
            raise TokenizerError(
                f"{named}: contains an encoder, not a tokenizer: give it K-means centroids that exist (spintok import "
                f"{named} --centroids FILE --layer N), or train a codebook on it (spintok train --init {named})"
            )
    elif Path(source).is_dir():
        raise TokenizerError(f"{source}: this folder has no config.json, so it is not a tokenizer")
    elif Path(source).is_file():
        return _from_spin(Path(source)).to(where)
    else:
        folder = registry.find(os.fspath(source), offline=offline, progress=progress)
    return _from_folder(folder).to(where)


def load_featurizer(
    source: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device = "cpu",
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Featurizer:
    """Load an encoder whose features are wanted: that of a tokenizer, or one of another library without a codebook.

    Args:
        source: as in ``load``; or as in ``spintok.models.importers.load_encoder``, such as a Hugging Face folder,
            a checkpoint, "ORG/NAME" on the Hub, "torchaudio:HUBERT_BASE" or "s3prl:NAME".
        device, offline, progress: as in ``load``.

    Raises:
        ValueError: as ``load``; or the checkpoint cannot be used.
    """
    where = None if source is None else find_source(source, offline=offline, progress=progress)
    if where is not None and _is_encoder(os.fspath(where)):
        encoder = load_extractor(where)
        return Featurizer(encoder, name=Path(str(source).partition("@")[0]).name).to(find_device(device))
    return load(source, device=device, offline=offline, progress=progress)


def find_source(
    source: str | os.PathLike[str], *, offline: bool | None = None, progress: Progress | None = None
) -> str | os.PathLike[str]:
    """The folder in the cache if ``source`` is a repository of the Hugging Face Hub or a tokenizer of the catalogue.

    Anything else is returned as it is. A tokenizer of the catalogue is put together at first.

    Raises:
        DownloadError: a file or a repository cannot be downloaded.
        ValueError: what was downloaded is damaged, or something else.
    """
    name = os.fspath(source)
    if Path(name).exists() or name in registry.known():
        return source
    if (published := catalogue().get(name)) is not None:
        return _put_together(published, offline=is_offline() if offline is None else offline, progress=progress)
    if registry.is_repository(name):
        return registry.find(name, offline=offline, progress=progress)
    return source


def _put_together(published: Published, *, offline: bool, progress: Progress | None) -> Path:
    """The folder of a published tokenizer, which is made of its files once."""
    if is_tokenizer(published.folder):
        return published.folder
    paths = {part: fetch_part(part, offline=offline, progress=progress or no_progress) for part in published.parts}
    if published.checkpoint is not None:
        tokenizer = _from_spin(paths[published.checkpoint])
        tokenizer.name = published.name
    else:
        assert published.encoder is not None
        assert published.centroids is not None
        encoder = published.encoder if isinstance(published.encoder, str) else paths[published.encoder]
        tokenizer = import_quantizer(
            encoder,
            paths[published.centroids],
            layer=published.layer,
            name=published.name,
            offline=offline,
            progress=progress,
        )
    found, said = (tokenizer.codebook_size, tokenizer.frame_rate), (published.size, published.frame_rate)
    if found != said:
        raise ValueError(
            f"{published.name}: its files give {found[0]} codewords at {found[1]} frames a second, not {said[0]} at "
            f"{said[1]} as the catalogue says: it is wrong, or the files are others"
        )
    tokenizer.save(published.folder)
    return published.folder


def import_quantizer(
    encoder: str | os.PathLike[str],
    centroids: str | os.PathLike[str],
    *,
    layer: int,
    name: str | None = None,
    final_norm: bool = False,
    offline: bool | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """A tokenizer of an encoder and a K-means that someone has fitted on one of its layers.

    Args:
        encoder: as in ``load_featurizer``; the layers above ``layer`` are left out.
        centroids: a file that ``spintok.models.importers.centroids.read_centroids`` reads; or the checkpoint of SpidR
            that is the encoder, for the codes that it predicts itself.
        layer: the layer whose features were clustered, counted from 1; 0 is the input of the first one.
        name: the tokenizer's name; by default that of the encoder, the layer and the size, such as "hubert-L6-km100".
        final_norm: as in ``spintok.models.importers.load_encoder``.
        offline, progress: as in ``load``.

    Raises:
        ValueError: the encoder or the K-means cannot be used, or they do not belong together.
    """
    where = find_source(encoder, offline=offline, progress=progress)
    if Path(where).is_file() and Path(centroids).exists() and Path(where).samefile(centroids):
        return _from_spidr(Path(where), layer, name)
    if _is_encoder(os.fspath(where)):
        extractor = load_extractor(where, final_norm=final_norm)
    else:
        extractor = load(where, offline=offline, progress=progress).encoder
    if not 0 <= layer <= extractor.num_layers:
        raise ValueError(f"{encoder} has layers 0 ... {extractor.num_layers}, got layer {layer}")
    book = read_centroids(Path(centroids)).codebook()
    if book.config.features != extractor.num_features:
        raise ValueError(
            f"{centroids}: the centroids belong to features of width {book.config.features}, but those of {encoder} "
            f"have {extractor.num_features}: it was fitted on another encoder"
        )
    stem = Path(str(encoder).partition("@")[0].rpartition(":")[2]).stem
    name = name or f"{stem}-L{layer}-km{book.config.size}"
    return Tokenizer(extractor.truncated(layer), [book], layer=layer, name=name)


def _is_encoder(source: str) -> bool:
    """Whether this is an encoder of another library: a checkpoint file, a folder of its own format, or a name of it."""
    path = Path(source)
    if path.is_dir():
        return (path / "config.json").is_file() and not is_tokenizer(path)
    return path.is_file() or source.partition(":")[0] in ("torchaudio", "s3prl")


def _from_folder(folder: Path) -> Tokenizer:
    config, weights = read_folder(folder)
    try:
        tokenizer = _build(config)
    except TokenizerError:
        raise
    except CheckpointError as error:
        raise TokenizerError(f"{folder}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = f"{error!r}".splitlines()[0][:300]
        raise TokenizerError(f"{folder}: config.json does not describe a tokenizer: {reason}") from None
    load_weights(tokenizer, weights, folder, TokenizerError)
    return tokenizer


def _build(config: dict[str, Any]) -> Tokenizer:
    """The tokenizer without its weights, for which nothing is allocated before their sizes are known to fit."""
    name = config["name"]
    if not isinstance(name, str):
        raise ValueError(f"name must be a text, got {str(name)[:80]}")
    layer = config["layer"]
    if layer is not None and (not isinstance(layer, int) or isinstance(layer, bool)):
        raise ValueError(f"layer must be an integer or null, got {str(layer)[:80]}")
    encoder = extractor_from_config(config["encoder"])
    with torch.device("meta"):
        codebooks = [Codebook(CodebookConfig(**codebook)) for codebook in config["codebooks"]]
    return Tokenizer(encoder, codebooks, layer=layer, name=name, window=Window(**config["window"]))


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


def _from_spidr(path: Path, layer: int, name: str | None) -> Tokenizer:
    """The units of a layer that a SpidR checkpoint predicts."""
    encoder, units = load_spidr(path, layer)
    size, width = units.weight.shape
    codebook = Codebook(CodebookConfig("primary", size, width, size, "dot", projection=True))
    # The projection is the prediction, and the nearest of the unit vectors that of its largest number.
    weights = {"codewords": torch.eye(size), "projection.weight": units.weight, "projection.bias": units.bias}
    codebook.load_state_dict(weights)
    return Tokenizer(encoder, [codebook], layer=layer, name=name or f"{path.stem}-L{layer}-{size}")


def find_device(name: str | torch.device) -> torch.device:
    """The device of that name; "auto" takes a GPU if there is one. Raises ``ValueError``."""
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # torchrun starts a process for each GPU, and all of them see all GPUs.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"unknown device {str(name)!r}: use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(name)!r}: this torch sees no CUDA GPU; use cpu")
    return device
