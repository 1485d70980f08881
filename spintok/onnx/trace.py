"""torch's part of the graph: ``WindowCodes`` and ``BlockSums``, traced by torch.export for any number of samples."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.export import Dim

from spintok.models.conv_frontend import FrontEnd
from spintok.models.encoder import Encoder
from spintok.models.log_mel import LogMelFrontEnd
from spintok.onnx.modules import BlockSums, Pieces, WindowCodes
from spintok.tokenizer import Tokenizer

__all__ = ["trace_sums", "trace_window"]

# Torch makes special cases of the sizes 0 and 1, so traces begin at 2. The nodes they give know no least size.
_LEAST, _MOST = 2, 1 << 20
_TRACED = 50
"""Pieces of the audio that is traced; any number does."""


def trace_window(tokenizer: Tokenizer, codebook: str, window: Pieces, patches: Pieces | None, opset: int) -> ModelProto:
    """``WindowCodes``; its inputs are samples, and with ``patches`` the sums of ``BlockSums``."""
    module = WindowCodes(tokenizer, tokenizer.codebook(codebook))
    sums: tuple[Tensor, ...] = ()
    if patches is not None:
        sums = _block_sums(tokenizer)(*_block(patches))
    shapes: list[Any] = [_shape(window)]
    if sums:
        shapes.append(tuple({} for _ in sums))
    return _trace(module, (torch.zeros(window.samples(_TRACED)), *sums), shapes, opset)


def trace_sums(tokenizer: Tokenizer, patches: Pieces, opset: int) -> ModelProto:
    """``BlockSums``; its inputs are the samples of the block, and those of its patches."""
    shapes = [{0: Dim("samples", min=_LEAST, max=_MOST)}, _shape(patches)]
    return _trace(_block_sums(tokenizer), _block(patches), shapes, opset)


def _block_sums(tokenizer: Tokenizer) -> BlockSums:
    assert isinstance(tokenizer.encoder, Encoder)
    assert isinstance(tokenizer.encoder.front_end, FrontEnd | LogMelFrontEnd)
    return BlockSums(tokenizer.encoder.front_end)


def _block(patches: Pieces) -> tuple[Tensor, Tensor]:
    return torch.zeros(5000), torch.zeros(patches.samples(_TRACED))


def _shape(pieces: Pieces) -> dict[int, Any]:
    return {0: pieces.step * Dim("pieces", min=_LEAST, max=_MOST) + (pieces.reach - pieces.step)}


def _trace(module: nn.Module, inputs: tuple[Tensor, ...], shapes: list[Any], opset: int) -> ModelProto:
    # With gradients, as in training, the modules compute whole batches by plain operations, without fast paths.
    with torch.enable_grad(), _silence():
        program = torch.onnx.export(
            module.eval(), inputs, dynamo=True, dynamic_shapes=tuple(shapes), opset_version=opset, verbose=False
        )
    assert program is not None
    model: ModelProto = program.model_proto
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """Without torch's own warnings of torchvision and of what it deprecates in itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
