"""The definition of every operation in float64, against which the compiled ones are tested. It is slow."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "assign",
    "attend",
    "linear",
    "reference_loss",
    "reference_metrics",
    "reference_sinkhorn",
    "transformer_step",
]


def assign(z: Tensor, codebook: Tensor, metric: str = "dot") -> tuple[Tensor, Tensor, Tensor]:
    """Return ids (N,), scores (N,) and margins (N,) of the best codewords of z (N, D) in codebook (K, D).

    Sums run over d = 0, 1, ... in float64. A product of two float32 numbers is exact in float64, so this order gives
    the same bits on every machine, and equal codewords tie exactly; the lowest index wins. A row that is not finite
    has id -1, and its score and margin are NaN. Margins are inf if K = 1.
    """
    z64, c64 = z.double(), codebook.double()
    dots = torch.zeros(len(z), len(codebook), dtype=torch.float64)
    squares = torch.zeros(len(codebook), dtype=torch.float64)
    distances = torch.zeros_like(dots)
    for d in range(z.shape[1]):
        dots += z64[:, d, None] * c64[None, :, d]
        squares += c64[:, d] * c64[:, d]
        distances += (z64[:, d, None] - c64[None, :, d]).square()

    # argmin |z - c|^2 = argmax z.c - |c|^2 / 2; the returned score is the negative squared distance.
    ranking = dots if metric == "dot" else dots - 0.5 * squares
    best = ranking.max(dim=1, keepdim=True).values
    ids = (ranking == best).int().argmax(dim=1)
    others = ranking.scatter(1, ids[:, None], -torch.inf)
    margins = (best - others.max(dim=1, keepdim=True).values).squeeze(1)
    scores = (dots if metric == "dot" else -distances).gather(1, ids[:, None]).squeeze(1)
    if metric == "l2":
        margins = 2 * margins
    finite = z.isfinite().all(dim=1)
    ids = torch.where(finite, ids, -1).int()
    return ids, scores.where(finite, torch.nan), margins.where(finite, torch.nan)


def reference_sinkhorn(
    scores: Tensor, epsilon: float, iterations: int = 3, counted: Tensor | slice = slice(None)
) -> Tensor:
    """Return the smoothed targets Q (N, K) of `scores` (N, K) by the exp form of SwAV (arXiv 2006.09882, appendix A).

    Each iteration scales every codeword to the mass 1/K and then every frame to the mass 1/N; at the end each row is
    scaled to sum to 1. Codewords share the mass of the frames ``counted`` (N,) equally. No gradient flows through Q.
    """
    q = torch.exp(scores.detach().double() / epsilon)
    n, k = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q[counted].sum(0, keepdim=True) / k
        q = q / q.sum(1, keepdim=True) / n
    return q * n


def reference_loss(
    z1: Tensor,
    z2: Tensor,
    codebook: Tensor,
    *,
    temperature: float = 0.1,
    epsilon: float = 0.02,
    iterations: int = 3,
    counted: Tensor | slice = slice(None),
) -> Tensor:
    """Return the swapped-prediction loss (Spin, arXiv 2305.11072, equation 4), differentiable, in float64.

    z1, z2 (N, D) are the two views, codebook (K, D). Each view predicts the smoothed targets of the other.
    """
    scores1 = z1.double() @ codebook.double().T
    scores2 = z2.double() @ codebook.double().T
    q1 = reference_sinkhorn(scores1, epsilon, iterations, counted)
    q2 = reference_sinkhorn(scores2, epsilon, iterations, counted)
    log_p1 = torch.log_softmax(scores1 / temperature, dim=1)
    log_p2 = torch.log_softmax(scores2 / temperature, dim=1)
    return -0.5 * ((q2 * log_p1).sum(1).mean() + (q1 * log_p2).sum(1).mean())


def reference_metrics(
    z1: Tensor, z2: Tensor, codebook: Tensor, *, temperature: float = 0.1
) -> tuple[Tensor, Tensor, Tensor]:
    """Return prediction perplexity (2,), assignment perplexity (2,) and the agreement of the views, in float64.

    Perplexity is exp(H) of the mean prediction, and of the histogram of the nearest codewords; agreement is
    the share of frames whose nearest codeword is the same in both views.
    """
    scores = torch.stack([z1.double() @ codebook.double().T, z2.double() @ codebook.double().T])
    mean_prediction = torch.softmax(scores / temperature, dim=2).mean(1)
    codes = scores.argmax(2)
    usage = torch.nn.functional.one_hot(codes, len(codebook)).double().mean(1)
    agreement = (codes[0] == codes[1]).double().mean()
    return _perplexity(mean_prediction), _perplexity(usage), agreement


def _perplexity(p: Tensor) -> Tensor:
    return torch.exp(torch.special.entr(p).sum(-1))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> Tensor:
    """Return x (..., M, K) times weight (..., N, K) transposed plus bias (..., N), or its GELU, in float64."""
    out = x.double() @ weight.double().mT
    if bias is not None:
        out = out + bias.double().unsqueeze(-2)
    return torch.nn.functional.gelu(out) if gelu else out


def attend(
    q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, positions: Tensor | None = None, gate: Tensor | None = None
) -> Tensor:
    """Return the attention (B, T, H, E) within the first ``lengths`` (B,) frames of q, k, v (B, T, H, E), in float64.

    Vaswani et al. 2017, equation 1, with the bias ``gate`` (B, H, T) times ``positions`` (H, T, T); zero where padded.
    """
    out = torch.zeros(q.shape, dtype=torch.float64)
    for b, length in enumerate(lengths.tolist()):
        query, key, value = (x[b, :length].double().transpose(0, 1) for x in (q, k, v))
        scores = query @ key.mT / q.shape[3] ** 0.5
        if positions is not None and gate is not None:
            scores = scores + gate[b, :, :length, None].double() * positions[:, :length, :length].double()
        out[b, :length] = (scores.softmax(-1) @ value).transpose(0, 1)
    return out


def transformer_step(
    x: Tensor, layers: Sequence[Sequence[Tensor]], keys: Tensor, values: Tensor, valid: int, *, pre: bool, eps: float
) -> tuple[list[Tensor], Tensor, Tensor]:
    """The outputs (T, D) of transformer layers from the frames x (T, D) of a step, and their keys and values.

    Args:
        x: (T, D); the first ``valid`` frames can be attended to.
        layers: the tensors of each layer, as in ``spintok_kernels.steps.LayerWeights``.
        keys, values: those of the past, (layers, heads, past, D / heads).
        valid: frames of the step that count.
        pre: norms come before attention and feed-forward network, not after the residuals.
        eps: the epsilon of the norms.
    """
    x = x.double()
    heads, (frames, width) = keys.shape[1], x.shape
    found, new_keys, new_values = [], [], []
    for index, layer in enumerate(layers):
        scale, shift, qkv, qkv_bias, out, out_bias, scale2, shift2, expand, expand_bias, contract, contract_bias = (
            weight.double() for weight in layer
        )
        normed = F.layer_norm(x, (width,), scale, shift, eps) if pre else x
        q, k, v = (normed @ qkv.T + qkv_bias).view(frames, 3, heads, -1).permute(1, 2, 0, 3)
        new_keys.append(k)
        new_values.append(v)
        heard = torch.cat([keys[index].double(), k[:, :valid]], 1)
        scores = q @ heard.transpose(1, 2) / heard.shape[2] ** 0.5
        attended = scores.softmax(2) @ torch.cat([values[index].double(), v[:, :valid]], 1)
        x = x + attended.transpose(0, 1).flatten(1) @ out.T + out_bias
        if not pre:
            x = F.layer_norm(x, (width,), scale, shift, eps)
        normed = F.layer_norm(x, (width,), scale2, shift2, eps) if pre else x
        x = x + F.gelu(normed @ expand.T + expand_bias) @ contract.T + contract_bias
        if not pre:
            x = F.layer_norm(x, (width,), scale2, shift2, eps)
        found.append(x)
    return found, torch.stack(new_keys), torch.stack(new_values)
