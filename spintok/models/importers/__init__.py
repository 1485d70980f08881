"""Encoders with the weights of other libraries: torchaudio, Hugging Face, fairseq, s3prl, Spin's authors, SpidR."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from spintok.models.base import FeatureExtractor
from spintok.models.config import EncoderConfig
from spintok.models.encoder import Encoder
from spintok.models.importers.fairseq import from_fairseq, from_s3prl, is_fairseq, is_s3prl
from spintok.models.importers.huggingface import load_huggingface, read_json
from spintok.models.importers.read import read_checkpoint
from spintok.models.importers.s3prl import build_upstream, convert_upstream, native_upstream
from spintok.models.importers.spidr import SpidrUnits, from_spidr, is_spidr, units_of_spidr
from spintok.models.importers.spin import SpinCheckpoint, from_spin, is_spin
from spintok.models.importers.torchaudio import from_torchaudio, is_torchaudio, load_bundle
from spintok.models.importers.upstream import Upstream, load_upstream
from spintok.models.importers.w2v_bert import MODEL_TYPE, W2vBert, load_w2v_bert
from spintok.models.importers.weights import CheckpointError

__all__ = [
    "CheckpointError",
    "SpidrUnits",
    "SpinCheckpoint",
    "Upstream",
    "W2vBert",
    "load_encoder",
    "load_extractor",
    "load_spidr",
    "load_spin",
    "load_upstream",
]


def load_encoder(
    source: str | os.PathLike[str], *, layers: int | None = None, heads: int | None = None, final_norm: bool = False
) -> Encoder:
    """An encoder with another library's weights, in evaluation mode, on the CPU, in float32.

    Args:
        source: a Hugging Face folder; a checkpoint file of torchaudio, fairseq, s3prl, WavLM's authors, Spin's
            authors, SpidR or DinoSR, which is recognised by its content; or a name such as "torchaudio:HUBERT_BASE" or
            "s3prl:hubert", which is downloaded. "s3prl:hubert_local:FILE" gives an s3prl upstream a local checkpoint.
        layers: keep only this many of the lowest transformer layers.
        heads: the number of attention heads, for a file of torchaudio, SpidR or DinoSR of a width that no published
            model has.
        final_norm: for encoders with norms before each block (Large models), apply the final layer norm to the output
            of the last layer, as every ``last_hidden_state``, transformers 4 and s3prl do. By default the last
            layer's own output is returned, as in torchaudio, transformers 5 and Spin. See ``EncoderConfig``.

    Raises:
        CheckpointError: one line that names the source, the problem and, if there is one, the fix.
        ImportError: the library that a name needs is not installed.
    """
    try:
        encoder = Encoder.from_state(*_convert(str(source), heads, final_norm))
        return encoder if layers is None else encoder.truncated(layers)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error


def load_extractor(source: str | os.PathLike[str], *, final_norm: bool = False) -> FeatureExtractor:
    """As ``load_encoder``, for any architecture: a Hugging Face folder may be w2v-BERT 2.0, "s3prl:NAME" any upstream.

    Raises:
        CheckpointError, ImportError: as ``load_encoder``.
    """
    if _is_w2v_bert(Path(source)):
        try:
            if final_norm:
                raise CheckpointError("final_norm does not apply: every layer of w2v-BERT ends with a norm of its own")
            return load_w2v_bert(Path(source))
        except ValueError as error:
            raise CheckpointError(f"{source}: {error}") from error
    origin, _, rest = str(source).partition(":")
    if origin != "s3prl" or not rest:
        return load_encoder(source, final_norm=final_norm)
    name, _, ckpt = rest.partition(":")
    try:
        upstream = build_upstream(name, ckpt or None)
        try:
            return Encoder.from_state(*convert_upstream(upstream, final_norm=final_norm))
        except CheckpointError:
            # s3prl itself decides about the norm, as it does about everything else in an upstream.
            if final_norm:
                raise
            return Upstream(name, upstream, ckpt=ckpt or None)
    except ValueError as error:
        raise CheckpointError(f"{source}: {error}") from error


def load_spin(path: str | os.PathLike[str]) -> SpinCheckpoint:
    """The encoder, head and codebook of a checkpoint that Spin's authors released.

    Raises:
        CheckpointError: the file cannot be read safely, or is something else.
    """
    try:
        values = _read(Path(path))
        if is_spidr(values):
            raise CheckpointError(
                "it is a checkpoint of SpidR or of DinoSR: for SpidR's own units, "
                f"spintok import {path} FOLDER --centroids {path} --layer 6"
            )
        if not is_spin(values):
            raise CheckpointError("it is not a Spin checkpoint: it has no loss_module.codebook.weight")
        return from_spin(values)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def load_spidr(path: str | os.PathLike[str], layer: int, *, heads: int | None = None) -> tuple[Encoder, SpidrUnits]:
    """The encoder of a SpidR checkpoint up to a layer, counted from 1, and the predictor of its codes.

    Raises:
        CheckpointError: the file cannot be read safely, is something else, such as a checkpoint of DinoSR, or the
            layer has no codes.
    """
    try:
        values = _read(Path(path))
        if not is_spidr(values):
            raise CheckpointError("it is not a checkpoint of SpidR: it has no student")
        units = units_of_spidr(values, layer)
        encoder = Encoder.from_state(*from_spidr(values, heads=heads)).truncated(layer)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if units.weight.shape[1] != encoder.num_features:
        raise CheckpointError(f"{path}: its predictors of codes do not fit features of width {encoder.num_features}")
    return encoder, units


def _is_w2v_bert(folder: Path) -> bool:
    try:
        return folder.is_dir() and read_json(folder / "config.json").get("model_type") == MODEL_TYPE
    except CheckpointError:
        # ``load_encoder`` says what is wrong with it.
        return False


def _convert(source: str, heads: int | None, final_norm: bool) -> tuple[EncoderConfig, dict[str, Tensor]]:
    origin, _, name = source.partition(":")
    if origin == "torchaudio" and name:
        return load_bundle(name, final_norm=final_norm)
    if origin == "s3prl" and name:
        name, _, ckpt = name.partition(":")
        return native_upstream(name, ckpt or None, final_norm=final_norm)
    path = Path(source)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise CheckpointError("it is not a Hugging Face folder: it has no config.json")
        return load_huggingface(path, final_norm=final_norm)
    values = _read(path)
    if is_spin(values):
        if final_norm:
            raise CheckpointError("final_norm does not apply: the head of Spin reads a layer's own output")
        spin = from_spin(values)
        return spin.config, spin.encoder_state
    if is_spidr(values):
        if final_norm:
            raise CheckpointError("final_norm does not apply: SpidR and DinoSR read the inside of their layers")
        return from_spidr(values, heads=heads)
    if is_s3prl(values):
        return from_s3prl(values, final_norm=final_norm)
    if is_fairseq(values):
        return from_fairseq(values, final_norm=final_norm)
    if is_torchaudio(values):
        return from_torchaudio(values, heads=heads, final_norm=final_norm)
    if any("encoder.pos_conv_embed." in name for name in values):
        raise CheckpointError("these are Hugging Face weights without their config.json: give the folder that has both")
    raise CheckpointError(
        "it is not a checkpoint of torchaudio, fairseq, s3prl, Spin or SpidR; it holds "
        + ", ".join(name[:60] for name in sorted(values)[:5])
    )


def _read(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        raise CheckpointError("there is no such file or folder; names look like torchaudio:HUBERT_BASE or s3prl:hubert")
    values = read_checkpoint(path)
    if not isinstance(values, Mapping):
        raise CheckpointError(f"it holds a {type(values).__name__}, not a checkpoint")
    return {name: value for name, value in values.items() if isinstance(name, str)}
