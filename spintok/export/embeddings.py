"""Initialize the embeddings of speech tokens in a language model, from its text embeddings or from codewords."""

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
    """Give a ``transformers`` model an embedding for every id of the vocabulary; those of text do not change.

    A new row is the mean of the text rows plus a deviation: for codes with codewords a row of ``project_codewords``,
    otherwise normal noise of standard deviation ``noise``, so that rows differ from the start. Both are multiplied by
    the spread of the text rows, the root mean square of their deviation from their mean. An output embedding that is
    not tied to the input embedding gets the same treatment.

    Args:
        model: changed in place. A model with more rows than ids keeps them.
        vocabulary: the vocabulary of the model's extended tokenizer.
        codewords: (K, E), of the first codebook.
        noise: standard deviation of the noise, relative to the spread.
        seed: seeds the noise and the projection.

    Raises:
        ExportError: the model has fewer rows than there are text ids, or K is not the size of the codebook.
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
    """Codewords as rows of another width that keep their geometry.

    The codewords are centred, projected onto their ``width`` leading singular directions, and expressed in a random
    orthonormal basis. If ``width`` is at least their rank, all inner products of the centred codewords are kept, up to
    one factor.

    Args:
        codewords: (K, E).
        width: the width of the rows.
        seed: seeds the basis.

    Returns:
        (K, width) float32, with mean zero and a root mean square of 1.

    Raises:
        ExportError: all codewords are equal.
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
        raise ExportError("the codewords are all the same, so their tokens cannot differ either")
    return (projected / size).float()
