"""Tokenizers that others have published: which files, layer and K-means belong together, and where they are; encoders.

``pretrained/catalogue.toml`` holds what public documents say. ``spintok.loading`` puts a tokenizer of the catalogue
together once, and keeps it in the cache as a folder.
"""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path
from typing import Any

from filelock import FileLock

from spintok.hub.download import DownloadError, cache_root, sha256_of
from spintok.hub.huggingface import parse_repository
from spintok.hub.registry_file import pretrained
from spintok.progress import Progress, no_progress

__all__ = ["Part", "Published", "PublishedEncoder", "catalogue", "encoders", "fetch_part"]


@dataclass(frozen=True)
class Part:
    """A file of a published tokenizer.

    Attributes:
        name: the file's name in the cache.
        url: its address.
        sha256, size: where they are published.
    """

    name: str
    url: str
    sha256: str | None = None
    size: int | None = None

    @property
    def path(self) -> Path:
        """Where the cache keeps it."""
        return cache_root() / "published" / self.name


@dataclass(frozen=True)
class Published:
    """A tokenizer that others have published.

    Attributes:
        name, description, licence: as in a registry.
        source: the document that says what belongs together.
        checkpoint: a checkpoint of Spin, which is the whole tokenizer; or None, and instead
        encoder: the encoder's file, or its repository on the Hugging Face Hub, and
        centroids: the K-means; the encoder's file again, if it predicts its codes itself (SpidR).
        layer: the layer that the codebook reads, counted from 1; a checkpoint states it itself.
        size: K, the number of codewords.
        frame_rate: frames per second.
        normalised: whether the encoder reads waveforms of zero mean and unit variance.
    """

    name: str
    description: str
    licence: str
    source: str
    layer: int
    size: int
    frame_rate: int
    normalised: bool
    checkpoint: Part | None = None
    encoder: Part | str | None = None
    centroids: Part | None = None

    @property
    def parts(self) -> list[Part]:
        """The files to download."""
        parts = (self.checkpoint, self.encoder, self.centroids)
        return list(dict.fromkeys(one for one in parts if isinstance(one, Part)))

    @property
    def codes(self) -> str:
        """How a frame gets its code."""
        if self.checkpoint is not None:
            return "cosine"
        return "predicted by the encoder" if self.encoder == self.centroids else "L2 distance"

    @property
    def folder(self) -> Path:
        """Where the cache keeps the tokenizer once it is put together."""
        said = repr([(part.url, part.sha256) for part in self.parts] + [self.encoder, self.layer])
        return cache_root() / f"{self.name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


@dataclass(frozen=True)
class PublishedEncoder:
    """An encoder on the Hugging Face Hub that others have published without a K-means.

    Attributes:
        name: its repository.
        description, licence, source: as in ``Published``.
        layers: how many it has.
        layer: the one that published work reads.
        frame_rate: frames per second.
        input: what it reads.
    """

    name: str
    description: str
    licence: str
    source: str
    layers: int
    layer: int
    frame_rate: int
    input: str


def catalogue(path: Path | None = None) -> dict[str, Published]:
    """The published tokenizers by name, of spintok's own file by default.

    Raises:
        ValueError: the file is damaged.
    """
    return _read(path)[0]


def encoders(path: Path | None = None) -> dict[str, PublishedEncoder]:
    """The published encoders without a K-means by repository. Raises ``ValueError`` as ``catalogue``."""
    return _read(path)[1]


def _read(path: Path | None) -> tuple[dict[str, Published], dict[str, PublishedEncoder]]:
    if path is None:
        with as_file(pretrained()) as root:
            return _read(root / "catalogue.toml")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        parts = {name: Part(name, **fields) for name, fields in tables["files"].items()}
        tokenizers = {name: _published(name, fields, parts) for name, fields in tables["tokenizers"].items()}
        alone = {name: PublishedEncoder(name, **fields) for name, fields in tables.get("encoders", {}).items()}
        return tokenizers, alone
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a catalogue of tokenizers ({error!r})") from None


def fetch_part(part: Part, *, offline: bool = False, progress: Progress = no_progress) -> Path:
    """The file in the cache, after downloading it if it is missing; a file that was copied there by hand does as well.

    Raises:
        DownloadError: it cannot be downloaded, or has another checksum than the published one.
    """
    path = part.path
    by_hand = f"download it by hand: {part.url} as {path}"
    if not path.is_file():
        if offline:
            raise DownloadError(
                f"{part.name} is not in the cache, and --offline or SPINTOK_OFFLINE forbids downloads; {by_hand}"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f".{part.name}.lock")):
                if not path.is_file():
                    _download(part, path, by_hand, progress)
        except OSError as error:
            raise DownloadError(
                f"{path.parent}: cannot store {part.name} there ({error.strerror or error}); set SPINTOK_CACHE to "
                "another folder"
            ) from None
    elif part.sha256 is not None and (found := sha256_of(path)) != part.sha256:
        raise DownloadError(
            f"{path}: its sha256 is {found}, but the published file has {part.sha256}: delete it, and {by_hand}"
        )
    return path


def _download(part: Part, path: Path, by_hand: str, progress: Progress) -> None:
    # Importing aiohttp takes time, and most calls download nothing.
    from spintok.hub.transport import TransportError, receive, size_at

    partial = path.with_name(f".{part.name}.part")
    try:
        size = part.size or size_at(part.url)
        if partial.exists() and partial.stat().st_size > size:
            partial.unlink()
        receive(part.url, partial, size, lambda done: progress(part.name, done, size))
        found = sha256_of(partial)
        if part.sha256 is not None and found != part.sha256:
            partial.unlink()
            raise TransportError(
                f"wrong checksum: the file's sha256 is {found}, and {part.sha256} is the published one"
            )
    except TransportError as error:
        raise DownloadError(f"{part.url}: {error}. Check the network and run the command again, or {by_hand}") from None
    with partial.open("rb+") as stored:
        os.fsync(stored.fileno())
    partial.replace(path)


def _published(name: str, fields: Mapping[str, Any], parts: Mapping[str, Part]) -> Published:
    values = dict(fields)
    for field in ("checkpoint", "encoder", "centroids"):
        if field in values and not (field == "encoder" and parse_repository(values[field])):
            values[field] = parts[values[field]]
    found = Published(name, **values)
    if (found.checkpoint is None) != (found.encoder is not None and found.centroids is not None):
        raise ValueError(f"{name} needs a checkpoint, or an encoder and centroids")
    return found
