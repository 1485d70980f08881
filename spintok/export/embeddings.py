"""Rows for speech tokens in a language model's embeddings, from the mean of its own or from the codewords."""

from typing import Any

import torch
from torch import Tensor

from spintok.export.errors import ExportError
from spintok.export.vocabulary import Vocabulary

__all__ = ["project_codewords", "resize_embeddings"]


@torch.no_grad()
def resize_embeddings(
    model: Any, vocabulary: Vocabulary, *, codewords: Tensor | None = None, noise: float = 0.02, seed: int = 0
) -> None:
    """Give a ``transformers`` model a row for every id of the vocabulary; the rows of text stay as they are.

    New rows are the mean of the text rows plus a deviation. Text rows deviate from their mean by some root mean
    square, the spread; the new rows of codes deviate by ``project_codewords`` at the same spread, or, without
    codewords, like all other new rows by normal noise of ``noise`` times the spread: equal rows would
    be told apart by nothing but their gradients. Where the output embedding is not tied, it is treated alike.

    Args:
        model: changed in place; a model with more rows than ids keeps them.
        vocabulary: with ``first_id`` rows of text.
        codewords: (K, E) of the first codebook.
        noise, seed: of the noise and of the projection.

    Raises:
        ExportError: fewer rows than text ids, or codewords of another K.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    size = next(iter(vocabulary.codebooks.values()))
    if not 1 <= vocabulary.first_id <= rows:
        raise ExportError(f"the model has {rows} embeddings for {vocabulary.first_id} text tokens: another tokenizer's")
    if codewords is not None and codewords.shape[0] != size:
        raise ExportError(f"{codewords.shape[0]} codewords for a codebook of {size}")
    model.resize_token_embeddings(max(rows, vocabulary.size), mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    seen: set[int] = set()
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if layer is None or layer.weight.data_ptr() in seen:
            continue
        seen.add(layer.weight.data_ptr())
        text = layer.weight[: vocabulary.first_id].float()
        mean = text.mean(dim=0)
        spread = (text - mean).square().mean().sqrt()
        count = vocabulary.size - vocabulary.first_id
        deviation = noise * torch.randn(count, text.shape[1], generator=generator).to(text.device)
        if codewords is not None:
            deviation[:size] = project_codewords(codewords, text.shape[1], seed=seed).to(text.device)
        layer.weight[vocabulary.first_id : vocabulary.size] = (mean + spread * deviation).to(layer.weight.dtype)
        if getattr(layer, "bias", None) is not None:
            layer.bias[vocabulary.first_id : vocabulary.size] = layer.bias[: vocabulary.first_id].mean()


def project_codewords(codewords: Tensor, width: int, *, seed: int = 0) -> Tensor:
    """(K, width) rows with mean zero and a root mean square of 1, as near to each other as the codewords are.

    Codewords are centred and turned onto their ``width`` strongest directions, then onto a random orthonormal basis:
    with ``width`` at least their rank, all inner products are those of the centred codewords, times one number.
    """
    centred = codewords.detach().double().cpu()
    centred = centred - centred.mean(dim=0)
    left, values, _ = torch.linalg.svd(centred, full_matrices=False)
    rank = min(width, values.numel())
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(width, rank, generator=generator, dtype=torch.float64))
    projected: Tensor = (left[:, :rank] * values[:rank]) @ basis.T
    size = projected.square().mean().sqrt()
    if not size > 0:
        raise ExportError("the codewords are all the same, so they tell nothing about their tokens")
    return (projected / size).float()
