"""A tokenizer as one ONNX file, written only if ONNX Runtime computes the codes of spintok from it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from spintok._files import atomic, require
from spintok.frames import SAMPLE_RATE
from spintok.onnx.check import agreement, built_in_sample
from spintok.onnx.modules import pieces
from spintok.tokenizer import Tokenizer

__all__ = ["LEAST_SHARE", "OnnxExport", "export_onnx"]

LEAST_SHARE = 0.999
"""The least share of equal codes with which a file is written."""

_OPSET = 18
_LARGEST = 2**31 - 2**24
"""Bytes: protobuf ends at 2 GiB, and the graph takes some."""


@dataclass(frozen=True)
class OnnxExport:
    """What was written.

    Attributes:
        path: the file.
        size: its bytes.
        codebook: the name of the codebook.
        equal, frames: how many frames of the sample got the code of ``Tokenizer.encode``, and how many there are.
        runtime: the version of ONNX Runtime that was asked.
    """

    path: Path
    size: int
    codebook: str
    equal: int
    frames: int
    runtime: str


def export_onnx(
    tokenizer: Tokenizer,
    path: str | os.PathLike[str],
    *,
    codebook: str | None = None,
    sample: Iterable[Tensor] | None = None,
) -> OnnxExport:
    """Write a tokenizer as an ONNX file, atomically.

    The graph has the input ``audio``, (samples,) float32 at 16 kHz in [-1, 1] and of any length, and the output
    ``codes``, (frames,) int32. Long recordings are encoded in the tokenizer's windows, inside the graph. Its metadata
    are tokenizer, fingerprint, codebook, codebook_size, sample_rate, frame_rate and spintok_version.

    Args:
        tokenizer: the tokenizer, on the CPU.
        path: the file to write.
        codebook: the codebook to use; the primary by default.
        sample: waveforms (S,) float32 at 16 kHz on which ONNX Runtime and ``Tokenizer.encode`` are compared, by default
            a synthetic signal, of one frame up to more than a window.

    Raises:
        ValueError: the tokenizer has no graph or too many weights, an unknown codebook, a sample without a frame, or
            fewer than 99.9 % of the codes are equal: then nothing is written.
        MissingPackageError: the extra "onnx" is not installed.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        require(module, extra="onnx", purpose="an ONNX graph")
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; name a file to write")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder to write {path.name} to; make it first")
    if tokenizer.device.type != "cpu":
        raise ValueError(f"tokenizer {tokenizer.name!r} is on {tokenizer.device}: load it on the CPU to export it")
    if tokenizer.latency is not None:
        raise ValueError("a graph encodes whole recordings: export the tokenizer without a latency")
    name = tokenizer.codebook(codebook).config.name
    weights = sum(weight.numel() * weight.element_size() for weight in tokenizer.parameters())
    if weights > _LARGEST:
        raise ValueError(
            f"an ONNX file ends at 2 GiB, and tokenizer {tokenizer.name!r} has weights of {weights:,} bytes"
        )
    content = _model(tokenizer, name).SerializeToString()
    equal, frames = agreement(content, tokenizer, name, built_in_sample(tokenizer) if sample is None else sample)
    if equal < LEAST_SHARE * frames:
        raise ValueError(
            f"{path}: not written: ONNX Runtime gives {equal:,} of {frames:,} codes as spintok does "
            f"({equal / frames:.2%}), and {LEAST_SHARE:.1%} are needed"
        )
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    runtime = require("onnxruntime", extra="onnx", purpose="an ONNX graph").__version__
    return OnnxExport(path, len(content), name, equal, frames, runtime)


def _model(tokenizer: Tokenizer, codebook: str) -> Any:
    """The ModelProto."""
    # Imported here, since they need packages of the extra.
    from onnx import helper

    from spintok import __version__
    from spintok.onnx.graph import assemble
    from spintok.onnx.trace import trace_sums, trace_window

    window, patches = pieces(tokenizer)
    sums = None if patches is None else trace_sums(tokenizer, patches, _OPSET)
    codes = trace_window(tokenizer, codebook, window, patches, _OPSET)
    graph = assemble(tokenizer.window, tokenizer.grid, codes, window, sums, patches)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=codes.ir_version,
        producer_name="spintok",
        producer_version=__version__,
    )
    helper.set_model_props(
        model,
        {
            "tokenizer": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "codebook": codebook,
            "codebook_size": str(tokenizer.size_of(codebook)),
            "sample_rate": str(SAMPLE_RATE),
            "frame_rate": str(tokenizer.frame_rate),
            "spintok_version": __version__,
        },
    )
    return model
